"""Checkpoints: state, data position and config as one unit. The only file that knows Orbax.

Under `WORKDIR/checkpoints/STEP` lie three items: `teacher` (what evaluation needs), `training` (everything else that
a step changes) and `run` (config, digest of the data's index, position in the data). Both trees are nested dicts
named after the paths in the training state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from flax import nnx, traverse_util

from cion_jax import models
from cion_jax.common import typed_config
from cion_jax.common.errors import UserError
from cion_jax.common.paths import path_name
from cion_jax.training.config import Config
from cion_jax.training.state import TrainState, abstract, make_network

FOLDER = "checkpoints"
Network = Literal["teacher", "student"]

# What may differ when a run is resumed: it touches neither the order of the data nor the numbers.
FREE = (
    *("train.steps", "train.log_every", "train.checkpoint_every", "train.keep", "train.grace", "mesh", "profile"),
    *("data.threads", "data.path", "data.max_skipped", "data.accept_changed"),
)


class CheckpointError(UserError):
    """There is no usable checkpoint, or it belongs to another run."""


class SaveError(RuntimeError):
    """A checkpoint could not be written; those before it are in order."""


@dataclass(frozen=True)
class Trained:
    """One network of a run's checkpoint.

    Attributes:
      workdir: of the run.
      config: of the run.
      step: training steps behind it.
      index: digest of the data's index.
      params, stats: {"backbone": ..., "head": ...} trees; stats only of what has any.
    """

    workdir: Path
    config: Config
    step: int
    index: str
    params: dict[str, Any]
    stats: dict[str, Any]


class Checkpointer:
    """Asynchronous checkpoints of one run; use as a context manager so that the last one is finished.

    A checkpoint gets its name when it is complete; what a killed run leaves half-written is swept away by the next.
    """

    def __init__(self, workdir: str | Path, keep: int = 3, read_only: bool = False):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, read_only=read_only, create=not read_only, cleanup_tmp_directories=not read_only
        )
        handlers = {
            "teacher": ocp.StandardCheckpointHandler(),
            "training": ocp.StandardCheckpointHandler(),
            "run": ocp.JsonCheckpointHandler(),
        }
        self._folder = (Path(workdir) / FOLDER).resolve()
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            with self._writing(), contextlib.closing(self._manager):
                self._manager.wait_until_finished()
        except SaveError:
            if kind is None:  # or it would hide what ended the run
                raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Orbax reports what went wrong in its threads at its next call, as whatever it was."""
        try:
            yield
        except Exception as error:
            free = shutil.disk_usage(self._folder).free / 2**20
            raise SaveError(
                f"a checkpoint could not be written to {self._folder}, where {free:,.0f} MiB are free; the newest "
                f"complete one is of step {self.latest()}. Make room and give the same command again. "
                f"({_short(error)})"
            ) from error

    def check(self) -> None:
        """Raises SaveError where a checkpoint that is being written has failed."""
        with self._writing():
            self._manager.check_for_errors()

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, config: Config, position: dict[str, Any]) -> None:
        """Starts writing a checkpoint; returns as soon as the arrays are copied off the devices.

        Raises:
          SaveError: this one or the one before it could not be written.
        """
        teacher, training = _trees(state)
        args = ocp.args.Composite(
            teacher=ocp.args.StandardSave(teacher),
            training=ocp.args.StandardSave(training),
            run=ocp.args.JsonSave({"config": dataclasses.asdict(config), "position": position}),
        )
        with self._writing(), jax.transfer_guard("allow"):  # Orbax copies as it likes
            self._manager.save(step, args=args)

    def run(self, step: int) -> dict[str, Any]:
        """The `run` item: {"config": ..., "position": ...}."""
        with self._reading(step):
            return self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state at `step`.

        Args:
          like: abstract state (jax.ShapeDtypeStruct leaves, with the shardings to restore onto).

        Raises:
          CheckpointError: names, shapes or dtypes differ from `like`, or files are damaged; nothing is loaded.
        """
        teacher, training = _trees(like)
        restored = self._items(step, {"teacher": teacher, "training": training})
        flat = _flatten(restored["training"]) | {f"teacher/{n}": v for n, v in _flatten(restored["teacher"]).items()}
        paths, treedef = jax.tree_util.tree_flatten_with_path(like)
        return jax.tree_util.tree_unflatten(treedef, [flat[path_name(path)] for path, _ in paths])

    def restore_teacher(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """The teacher at `step`: {"params": ..., "stats": ...}; raises like `restore`."""
        return self._items(step, {"teacher": like})["teacher"]

    def _items(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        with self._reading(step):
            found = self._manager.item_metadata(step)
            for item, expected in like.items():
                _compare(expected, found[item].tree, f"checkpoint {step} ({item})")
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(tree) for item, tree in like.items()})
            return dict(self._manager.restore(step, args=args))

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            older = [s for s in self._manager.all_steps() if s < step]
            raise CheckpointError(
                f"checkpoint {self._folder / str(step)} is damaged; delete that folder to go on from "
                f"{f'step {max(older)}' if older else 'the beginning'}. ({_short(error)})"
            ) from error


def load_network(path: str | Path, network: Network = "teacher") -> Trained:
    """The teacher or the student of a run, on one device.

    Args:
      path: the run's workdir, for its newest checkpoint, or one of its checkpoints, `WORKDIR/checkpoints/STEP`.
      network: which of the two.

    Raises:
      CheckpointError: no checkpoint there, or one that does not fit its own config.
    """
    path = Path(path)
    one = path.parent.name == FOLDER and path.name.isdigit()
    workdir = path.parent.parent if one else path
    if not (workdir / FOLDER).is_dir():
        raise CheckpointError(
            f"no checkpoint in {workdir}: expected a folder given as --workdir to `python -m cion_jax.train`"
        )
    with Checkpointer(workdir, read_only=True) as checkpointer:
        step = int(path.name) if one else checkpointer.latest()
        if step is None:
            raise CheckpointError(f"no complete checkpoint in {workdir}/{FOLDER}; train longer or resume the run")
        run = checkpointer.run(step)
        config = typed_config.freeze(Config, run["config"], "checkpoint.config")
        if network == "teacher":
            _, params, stats = models.split(nnx.eval_shape(lambda: make_network(config)))
            trees = checkpointer.restore_teacher(step, _on_one_device({"params": params, "stats": stats}))
        else:
            like = _on_one_device(abstract(config))
            trees = checkpointer.restore(step, like).student
    index = run["position"].get("index", "")
    return Trained(workdir, config, step, index, trees["params"], trees["stats"])


def check_resumable(config: Config, run: dict[str, Any], index: str) -> None:
    """Raises CheckpointError where the run of a checkpoint is not the one that is about to resume.

    Args:
      config: of the run that is about to resume.
      run: the checkpoint's `run` item.
      index: digest of the data's index.
    """
    ours = traverse_util.flatten_dict(json.loads(json.dumps(dataclasses.asdict(config))), sep=".")
    # A setting that came after the checkpoint had its default then.
    before = traverse_util.flatten_dict(json.loads(json.dumps(dataclasses.asdict(Config()))), sep=".")
    theirs = before | traverse_util.flatten_dict(run["config"], sep=".")
    names = [n for n in sorted(ours.keys() | theirs.keys()) if not n.startswith(FREE)]
    changes = [f"{n}: {theirs.get(n)} -> {ours.get(n)}" for n in names if ours.get(n) != theirs.get(n)]
    if changes:
        raise CheckpointError(
            f"the workdir holds checkpoints of another config ({', '.join(changes)}); give the same settings to "
            "resume it, or another --workdir to start anew"
        )
    if run["position"]["index"] != index and not config.data.accept_changed:
        raise CheckpointError(
            "the data changed since the checkpoint (its index has another digest); give the data it was trained on, "
            "another --workdir, or --config.data.accept_changed=true to go on with this data all the same"
        )


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _on_one_device(tree: Any) -> Any:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


def _flatten(tree: Any) -> dict[str, Any]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _trees(state: TrainState) -> tuple[dict, dict]:
    """The state as two nested dicts with string keys: (teacher, everything else)."""
    flat = _flatten(dataclasses.replace(state, teacher={}))
    return state.teacher, traverse_util.unflatten_dict(flat, sep="/")


def _compare(expected: Any, found: Any, what: str) -> None:
    """Raises CheckpointError where names, shapes or dtypes differ; Orbax itself would cast silently."""
    ours = {n: (tuple(x.shape), str(x.dtype)) for n, x in _flatten(expected).items()}
    theirs = {n: (tuple(x.shape), str(x.dtype)) for n, x in _flatten(found).items()}
    differ = [f"{n}: found {theirs[n]}, expected {ours[n]}" for n in ours if n in theirs and ours[n] != theirs[n]]
    missing, extra = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if differ or missing or extra:
        raise CheckpointError(
            f"{what} is not of this config's network; {len(missing)} missing {missing[:3]}, {len(extra)} unexpected "
            f"{extra[:3]}, {len(differ)} different {differ[:3]}; give its own config, or another --workdir"
        )

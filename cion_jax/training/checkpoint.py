"""Checkpoints: state, data position and config as one unit. The only file that knows Orbax.

Under `WORKDIR/checkpoints/STEP` lie three items: `served` (the network that evaluation needs), `training` (everything
else that a step changes) and `run` (task, config, digests of the data's index and of every array, position in the data,
preprocessing). Both trees are nested dicts named after the paths in the training state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from cion_jax.common import typed_config
from cion_jax.common.errors import UserError
from cion_jax.common.paths import path_name
from cion_jax.distributed import multihost
from cion_jax.training import digests
from cion_jax.training.config import RunConfig
from cion_jax.training.state import TrainState, at_path

# Orbax warns whoever only reads a run that it is only read.
logging.getLogger("absl").addFilter(lambda record: record.msg != "Given directory is read only=%s")

FOLDER = "checkpoints"

# What may differ when a run is resumed: it touches neither the order of the data nor the numbers.
FREE = (
    *("train.steps", "train.log_every", "train.checkpoint_", "train.keep", "train.grace", "mesh", "profile"),
    *("data.threads", "data.path", "data.max_skipped", "data.accept_changed", "evaluate"),
)
# Runs of distillation, before there were other tasks: another name of the item, and of what lay in `training`.
_OLD_SERVED, _OLD_NAMES = "teacher", (("trained/", "student/"), ("kept/center", "centre"))


class CheckpointError(UserError):
    """There is no usable checkpoint, or it belongs to another run."""


class SaveError(RuntimeError):
    """A checkpoint could not be written; those before it are in order."""


class Checkpointer:
    """Asynchronous checkpoints of one run; use as a context manager so that the last one is finished.

    A checkpoint gets its name when it is complete; what a killed run leaves half-written is swept away by the next.
    """

    def __init__(self, workdir: str | Path, keep: int = 3, read_only: bool = False):
        """Opens `workdir`/checkpoints; CheckpointError where that is no folder, or cannot be opened."""
        self._folder = (Path(workdir) / FOLDER).resolve()
        if self._folder.exists() and not self._folder.is_dir():
            raise CheckpointError(f"{self._folder} is a file, expected a folder of checkpoints; give another --workdir")
        writes = {"max_to_keep": keep, "cleanup_tmp_directories": True}
        reads = {"max_to_keep": None, "save_interval_steps": 0, "create": False, "read_only": True}
        options = ocp.CheckpointManagerOptions(**(reads if read_only else writes))
        trees = dict.fromkeys(("served", _OLD_SERVED, "training"))
        handlers = {name: ocp.StandardCheckpointHandler() for name in trees} | {"run": ocp.JsonCheckpointHandler()}
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._folder} cannot be opened: a _CHECKPOINT_METADATA in it is damaged; delete that file, "
                f"it holds times alone ({_short(error)})"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
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

    def wait(self) -> None:
        """Until the checkpoint that is being written is complete; raises SaveError where it failed."""
        with self._writing():
            self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, served: tuple[str, ...], run: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint; returns as soon as the arrays are copied off the devices.

        Where processes hold copies of an array that differ, process 0's is written, and it is said: every process
        writes a part, and a mixture would be nobody's.

        Args:
          step: steps done.
          state: after them.
          served: where in the state the served network lies.
          run: JSON types: `task`, `config`, `position`, `labels`, `preprocessing`.

        Raises:
          SaveError: this one or the one before it could not be written.
        """
        with self._writing(), jax.transfer_guard("allow"):  # Orbax copies as it likes
            numbers, unlike = digests.of(_flatten(state))
            if unlike:
                multihost.say(_unlike(step, unlike, len(numbers)))
                state = _of_process_0(state, unlike)
                numbers, _ = digests.of(_flatten(state))
            run = {**run, "digests": numbers}
            run["digest"] = _digest_of(run)
            trees = {name: ocp.args.StandardSave(tree) for name, tree in _trees(state, served).items()}
            self._manager.save(step, args=ocp.args.Composite(**trees, run=ocp.args.JsonSave(run)))

    def run(self, step: int) -> dict[str, Any]:
        """The `run` item: {"task": ..., "config": ..., "position": ..., "preprocessing": ..., "digests": ...}.

        Raises:
          CheckpointError: it cannot be read, or it is of another step than its folder says.
        """
        with self._reading(step):
            run = self._run(step)
        return {"task": "distill", "preprocessing": None, "digests": None} | run

    def _run(self, step: int) -> dict[str, Any]:
        """The `run` item as it is, of its step and not damaged; raises whatever shows that it is not."""
        for path in (self._folder / str(step)).rglob("*"):
            if not (path.is_file() or path.is_dir()):
                raise ValueError(f"{path} is no regular file")
        run = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
        if run.get("digest", _digest_of(run)) != _digest_of(run):
            raise ValueError("its item `run` is not what was saved")
        saved = run["position"]["step"]
        if saved != step or not isinstance(run["config"], dict):
            raise ValueError(f"it is of step {saved}, in the folder of step {step}")
        return run

    def last_good(self, before: int) -> int | None:
        """The newest step before `before` whose checkpoint can be opened; its arrays are not looked at."""
        for step in sorted((s for s in self._manager.all_steps() if s < before), reverse=True):
            with contextlib.suppress(Exception):  # whatever Orbax raises on damage
                self._run(step)
                return step
        return None

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, rising."""
        return sorted(self._manager.all_steps())

    def restore(self, run: Mapping[str, Any], like: TrainState, served: tuple[str, ...]) -> TrainState:
        """The state of a checkpoint.

        Args:
          run: the checkpoint's `run` item, as `run` gives it.
          like: abstract state (jax.ShapeDtypeStruct leaves, with the shardings to restore onto).
          served: where in the state the served network lies.

        Raises:
          CheckpointError: names, shapes or dtypes differ from `like`, or files are damaged; nothing is loaded.
        """
        trees = self._items(run, _trees(like, served))
        flat = _flatten(trees["training"]) | {
            f"{'/'.join(served)}/{n}": x for n, x in _flatten(trees["served"]).items()
        }
        self._check_digests(run, flat)
        paths, treedef = jax.tree_util.tree_flatten_with_path(like)
        return jax.tree_util.tree_unflatten(treedef, [flat[path_name(path)] for path, _ in paths])

    def restore_served(self, run: Mapping[str, Any], like: TrainState, served: tuple[str, ...]) -> dict[str, Any]:
        """The served network, {"params": ..., "stats": ...}; arguments and errors as of `restore`."""
        tree = self._items(run, {"served": at_path(like, served)})["served"]
        self._check_digests(run, {f"{'/'.join(served)}/{name}": leaf for name, leaf in _flatten(tree).items()})
        return tree

    def _items(self, run: Mapping[str, Any], like: dict[str, Any]) -> dict[str, Any]:
        step = run["position"]["step"]
        with self._reading(step):
            found = self._manager.item_metadata(step)
            old = "served" not in set(found)
            stored = {_OLD_SERVED if old and item == "served" else item: _renamed(t, old) for item, t in like.items()}
            for item, expected in stored.items():
                _compare(expected, found[item].tree, f"checkpoint {step} ({item})")
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(tree) for item, tree in stored.items()})
            restored = self._manager.restore(step, args=args)
        return {item: _renamed(restored[name], old, back=True) for item, name in zip(like, stored, strict=True)}

    def _check_digests(self, run: Mapping[str, Any], flat: dict[str, Any]) -> None:
        expected = run["digests"]
        if expected is None:  # written before there were any
            return
        with self._reading(run["position"]["step"]):
            wrong = [name for name, digest in digests.of(flat)[0].items() if expected.get(name) != digest]
            if wrong:
                raise ValueError(
                    f"{len(wrong)} of {len(flat)} arrays are not what was saved: {', '.join(sorted(wrong)[:3])}"
                )

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            good = self.last_good(step)
            back = "the beginning" if good is None else f"step {good}, {self._folder / str(good)}, the last good one"
            raise CheckpointError(
                f"checkpoint {self._folder / str(step)} is damaged; delete that folder to go on from {back}. "
                f"({_short(error)})"
            ) from error


def check_resumable(config: RunConfig, run: Mapping[str, Any], index: str) -> None:
    """Raises CheckpointError where the run of a checkpoint is not the one that is about to resume.

    Args:
      config: of the run that is about to resume.
      run: the checkpoint's `run` item.
      index: digest of the data's index.
    """
    stored: Any = {"task": run["task"]} | run["config"]
    if stored["task"] == config.task:  # a setting that came after the checkpoint had its default then
        stored = dataclasses.asdict(typed_config.freeze(type(config), stored, "checkpoint.config", old_names=True))
    ours, theirs = (_flat_settings(settings) for settings in (dataclasses.asdict(config), stored))
    names = [n for n in sorted(ours.keys() | theirs.keys()) if not n.startswith(FREE)]
    changes = [f"{n}: {theirs.get(n)} -> {ours.get(n)}" for n in names if ours.get(n) != theirs.get(n)]
    if changes:
        raise CheckpointError(
            f"the workdir holds checkpoints of another config ({', '.join(changes[:8])}); give the same settings to "
            "resume it, or another --workdir to start anew"
        )
    if run["position"]["index"] != index and not config.data.accept_changed:
        raise CheckpointError(
            "the data changed since the checkpoint (its index has another digest); give the data it was trained on, "
            "another --workdir, or --config.data.accept_changed=true to go on with this data all the same"
        )


def on_one_device(tree: Any) -> Any:
    """An abstract tree, to be restored onto the first device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


def _unlike(step: int, names: list[str], count: int) -> str:
    return (
        f"step {step:,}: {len(names)} of {count} arrays differ between processes ({', '.join(names[:3])}); expected "
        "copies of the same numbers. Either their programs were compiled differently (unlike machines, or a "
        "compilation cache that others filled: clear JAX_COMPILATION_CACHE_DIR), or a device computes wrongly. "
        "The checkpoint holds process 0's; all go on with those when they resume from it"
    )


def _of_process_0(state: TrainState, names: list[str]) -> TrainState:
    """The same with process 0's copies of the named arrays, which lie whole on every device."""

    def alike(path: Any, array: jax.Array) -> jax.Array:
        if path_name(path) not in names:
            return array
        own = np.asarray(array.addressable_data(0))
        first = multihost.of_first_array(lambda: own, own.shape, own.dtype)
        return jax.make_array_from_callback(array.shape, array.sharding, first.__getitem__)

    return jax.tree_util.tree_map_with_path(alike, state)


def _digest_of(run: Mapping[str, Any]) -> str:
    """SHA-256 of a `run` item, but for the digest itself."""
    rest = {name: value for name, value in run.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return traverse_util.flatten_dict(json.loads(json.dumps(settings)), sep=".")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _flatten(tree: Any) -> dict[str, Any]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _trees(state: TrainState, served: tuple[str, ...]) -> dict[str, Any]:
    """The state as two nested dicts with string keys: `served`, and everything else."""
    rest = {name: x for name, x in _flatten(state).items() if not name.startswith(f"{'/'.join(served)}/")}
    return {"served": at_path(state, served), "training": traverse_util.unflatten_dict(rest, sep="/")}


def _renamed(tree: Any, old: bool, back: bool = False) -> Any:
    """The same tree under the names of old checkpoints, or back from them."""
    if not old:
        return tree
    pairs = [(theirs, ours) if back else (ours, theirs) for ours, theirs in _OLD_NAMES]
    flat = {}
    for name, leaf in _flatten(tree).items():
        before, after = next(((a, b) for a, b in pairs if name.startswith(a)), ("", ""))
        flat[after + name.removeprefix(before)] = leaf
    return traverse_util.unflatten_dict(flat, sep="/")


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

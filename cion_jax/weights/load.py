"""The one way in for weights: PyTorch checkpoints, safetensors files and our own run folders.

A run folder is read as it is. Any other source first becomes two state dicts under PyTorch's names, of its backbone and
of its head; `torch_names.from_torch` then maps every name or fails with the list of those that do not fit.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from cion_jax import models
from cion_jax.common.paths import local_path
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.common.printable import printable
from cion_jax.common.typed_config import ConfigError, freeze
from cion_jax.tasks import TASKS
from cion_jax.training.checkpoint import FOLDER, Checkpointer, CheckpointError, on_one_device
from cion_jax.training.step import init_state
from cion_jax.weights import folded_onnx, folder, hub, mean, positions, timm_names, torch_names
from cion_jax.weights.adapt import check_weights
from cion_jax.weights.backbone import DEFAULT, Backbone, Run
from cion_jax.weights.positions import POSITIONS
from cion_jax.weights.torch_names import WeightsError
from cion_jax.weights.weights_file import WeightsFile, map_names, open_weights

Network = Literal["teacher", "student"]
_NAME = r"(?P<name>[^@=]*)(@(?P<height>[1-9]\d*)x(?P<width>[1-9]\d*))?"
_RANDOM, _FILE = re.compile(f"random:{_NAME}"), re.compile(f"file:{_NAME}=(?P<path>.+)")

_LARGEST = 4096  # pixels of a side of the images that a network takes

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Named:
    """One network of a file, under PyTorch's names.

    Attributes:
      backbone: names without any prefix, to arrays.
      head: of the distillation head, without `head.`; empty where the source has none.
      metadata: texts that a safetensors file carries.
    """

    backbone: State
    head: State
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


def load(spec: str, network: Network = "teacher", ignore: Iterable[str] = (), batch_size: int = 64) -> Backbone:
    """The backbone that --checkpoint names.

    Args:
      spec: one of
        `WORKDIR`: a training run, its newest checkpoint; `WORKDIR/checkpoints/STEP`: another one of it;
        `file:NAME[@HEIGHTxWIDTH]=FILE`: weights of the backbone NAME in a PyTorch or safetensors file,
          or in an ONNX file that PyTorch's exporter made of it;
        `FILE.safetensors`: the same, of a file that `python -m cion_jax.export` wrote: it says itself what it is;
        `FOLDER`: one that `python -m cion_jax.export --format=folder` or the package `reid` wrote;
        `hf://ORG/NAME[@REVISION]`: such a folder on the Hugging Face Hub; FILE above may be `hf://ORG/NAME/FILE`;
        `random:NAME[@HEIGHTxWIDTH]`: untrained, seed 0;
        `mean:A+B`: the mean of the weights of networks A and B, spelled as above; see `weights.mean`.
      network: which one of a run or of a file that holds both.
      ignore: regular expressions of names that a file may lack or have too many; a lacking one stays random.
      batch_size: images that are computed at a time.

    Raises:
      ConfigError: another spelling, or a name that does not exist.
      CheckpointError, WeightsError, TorchFileError: no usable weights there.
    """
    return dataclasses.replace(_load(spec, network, ignore), batch_size=batch_size)


def _load(spec: str, network: Network, ignore: Iterable[str]) -> Backbone:
    if spec.startswith(mean.PREFIX):
        return mean.of([(share, _load(part, network, ignore)) for share, part in mean.parts(spec)])
    if spec.startswith("random:"):
        name, size, _ = _parse(_RANDOM, spec, "random:NAME or random:NAME@HEIGHTxWIDTH")
        return Backbone(name, *models.split(_untrained(name)), Preprocessing(size), step=0)
    if spec.startswith("file:"):
        name, size, given = _parse(_FILE, spec, "file:NAME=FILE or file:NAME@HEIGHTxWIDTH=FILE")
        path = str(_local(given))
        module = models.abstract(name)
        if path.endswith(".onnx"):
            return _fit(Named(folded_onnx.read(path, module), {}), name, Preprocessing(size), ignore, path)
        return _fit(read(path, network, models.split(module)[1:], size), name, Preprocessing(size), ignore, path)
    spec = str(_local(spec))
    if folder.is_folder(Path(spec)):
        return _load_folder(Path(spec), ignore)
    if Path(spec).is_dir():
        return load_run(spec, network)
    named = read(spec, network)
    return _fit(named, named.metadata["model"], preprocessing(named.metadata, spec), ignore, spec)


def _local(given: str) -> Path:
    """What --checkpoint names, on this machine."""
    return hub.fetched(given) if given.startswith(hub.PREFIX) else local_path(given, "--checkpoint")


def _load_folder(path: Path, ignore: Iterable[str]) -> Backbone:
    """A folder for other software; its tensors bear the names that this software has for them."""
    file = path / folder.WEIGHTS
    opened = open_weights(file)
    name, metadata = folder.backbone_of(path, opened.metadata)
    values, like = preprocessing(metadata, file), models.split(models.abstract(name))[1:]
    opened = _under_our_names(dataclasses.replace(opened, metadata=metadata))
    return _fit(Named(*opened.network(*like, values.size), metadata), name, values, ignore, str(file))


def _under_our_names(opened: WeightsFile) -> WeightsFile:
    """A file whose metadata say that its names are timm's, under those of the original code; any other as it is."""
    name = opened.metadata.get("model", "")
    if opened.metadata.get("names") != folder.TIMMS or name not in timm_names.TIMM:
        return opened
    shapes, derived = torch_names.expected(*models.split(models.abstract(name))[1:])
    ours = {theirs: mine for mine, theirs in timm_names.TIMM[name].renamed([*shapes, *derived]).items()}
    return dataclasses.replace(opened, saved={ours.get(theirs, theirs): one for theirs, one in opened.saved.items()})


def weights_file(spec: str) -> list[Path]:
    """The files that --checkpoint names, if it names some."""
    if spec.startswith(mean.PREFIX):
        return [file for _, part in mean.parts(spec) for file in weights_file(part)]
    match = _FILE.fullmatch(spec)
    path = match["path"] if match else spec
    if spec.startswith("onnx:"):
        path = spec.removeprefix("onnx:").partition("?")[0]
    return [] if spec.startswith("random:") or path.startswith(hub.PREFIX) else [local_path(path, "--checkpoint")]


def load_run(path: str | Path, network: Network = "teacher") -> Backbone:
    """A network of a training run, on one device.

    Args:
      path: the run's workdir, for its newest checkpoint, or one of its checkpoints, `WORKDIR/checkpoints/STEP`.
      network: `teacher`: what the run's task serves; `student`: what its gradients change.

    Raises:
      CheckpointError: no checkpoint there, or one that does not fit its own config.
    """
    task, trees, origin, values = restore_run(path, network)
    check_weights(torch_names.to_torch(trees["params"], trees["stats"]))
    name, graphdef, params, stats = task.serve(trees)
    return Backbone(name, graphdef, params, stats, values, origin.step, origin, trees["params"].get("head", {}))


def restore_run(path: str | Path, network: Network = "teacher") -> tuple[Any, dict[str, Any], Run, Preprocessing]:
    """(task, network {"params", "stats"} on one device, where it comes from, its images); as `load_run`."""
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
        task = task_of(run)
        like = on_one_device(jax.eval_shape(lambda: init_state(task)))
        if network == "teacher":
            trees = checkpointer.restore_served(run, like, task.served)
        else:
            trees = checkpointer.restore(run, like, task.served).trained
    values = Preprocessing.of(run["preprocessing"]) if run["preprocessing"] else task.preprocessing
    return task, trees, Run(workdir, task.config, step, run["position"].get("index", "")), values


def task_of(run: Mapping[str, Any]) -> Any:
    """The task of a checkpoint's `run` item; ConfigError where its settings cannot be any more."""
    kind = TASKS[run["task"]]
    return kind(freeze(kind.schema, run["config"], "checkpoint.config", old_names=True))


def read(
    path: str | Path,
    network: Network = "teacher",
    like: tuple[dict, dict] | None = None,
    size: tuple[int, int] = DEFAULT.size,
) -> Named:
    """Reads one network of a safetensors file or a file of torch.save.

    Args:
      path: of the file; the network that fits the model is taken, wherever in the file it is.
      network: which one, of a file with several.
      like: (params, stats) of the model's backbone, of arrays or shapes; not needed where the file says what it is.
      size: (height, width) of the images that the weights are wanted for.
    """
    opened = _under_our_names(open_weights(path))
    if like is None:
        if not {"model", "input_size"} <= opened.metadata.keys():
            raise ConfigError(f"--checkpoint={path} does not say of which backbone it is; give file:NAME={path}")
        like = models.split(models.abstract(printable(opened.metadata["model"])))[1:]
        size = preprocessing(opened.metadata, path).size
    return Named(*opened.network(*like, size, network), opened.metadata)


def preprocessing(metadata: Mapping[str, str], path: str | Path) -> Preprocessing:
    """Size, mean and std of the images that an exported file is for; WeightsError where they are none."""
    try:
        fields = {"size": metadata["input_size"]} | {n: metadata[n] for n in ("mean", "std") if n in metadata}
        found = Preprocessing.of({name: json.loads(text) for name, text in fields.items()})
        whole = [type(n) is int and n > 0 for n in found.size]
        real = [type(n) in (int, float) for n in (*found.mean, *found.std)]
        if whole == [True, True] and len(real) == 6 and all(real) and min(found.std) > 0:
            return found
    except (ValueError, TypeError, RecursionError):
        pass
    said = printable(str({name: metadata.get(name) for name in ("input_size", "mean", "std")}))
    raise WeightsError(f"{path} says of its images {said}, expected [height, width] and three numbers each")


def _fit(named: Named, name: str, values: Preprocessing, ignore: Iterable[str], path: str) -> Backbone:
    graphdef, params, stats = models.split(_untrained(name) if ignore else models.abstract(name))
    at_size = positions.shape_at(params[POSITIONS].shape, values.size) if POSITIONS in params else ()
    if POSITIONS in named.backbone and named.backbone[POSITIONS].shape == at_size:
        params = params | {POSITIONS: named.backbone[POSITIONS]}
    params, stats = map_names(named.backbone, params, stats, ignore, path)
    return Backbone(name, graphdef, params, stats, values)


def _untrained(name: str) -> Any:
    return models.create(name, rngs=nnx.Rngs(0))


def _parse(pattern: re.Pattern, spec: str, spelling: str) -> tuple[str, tuple[int, int], str]:
    match = pattern.fullmatch(spec)
    if not match:
        raise ConfigError(f"--checkpoint takes {spelling}, got {spec!r}")
    size = (int(match["height"]), int(match["width"])) if match["height"] else DEFAULT.size
    if max(size) > _LARGEST:
        raise ConfigError(
            f"--checkpoint={spec}: images of {size[0]}x{size[1]}, expected at most {_LARGEST} pixels a side"
        )
    return match["name"], size, match.groupdict().get("path", "")

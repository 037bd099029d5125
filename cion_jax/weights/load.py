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
import safetensors
import safetensors.numpy
from flax import nnx

from cion_jax import models
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.common.typed_config import ConfigError, freeze
from cion_jax.tasks import TASKS
from cion_jax.training.checkpoint import FOLDER, Checkpointer, CheckpointError, on_one_device
from cion_jax.training.step import init_state
from cion_jax.weights import torch_file, torch_names
from cion_jax.weights.backbone import DEFAULT, Backbone, Run
from cion_jax.weights.torch_names import WeightsError

Network = Literal["teacher", "student"]
_NAME = r"(?P<name>[^@=]*)(@(?P<height>[1-9]\d*)x(?P<width>[1-9]\d*))?"
_RANDOM, _FILE = re.compile(f"random:{_NAME}"), re.compile(f"file:{_NAME}=(?P<path>.+)")
_HEAD = ("head.mlp.", "head.last_layer.")  # a backbone may have a classifier called `head`

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
        `file:NAME[@HEIGHTxWIDTH]=FILE`: weights of the backbone NAME in a PyTorch or safetensors file;
        `FILE.safetensors`: the same, of a file that `python -m cion_jax.export` wrote: it says itself what it is;
        `random:NAME[@HEIGHTxWIDTH]`: untrained, seed 0.
      network: which one of a run or of a file that holds both.
      ignore: regular expressions of names that a file may lack or have too many; a lacking one stays random.
      batch_size: images that are computed at a time.

    Raises:
      ConfigError: another spelling, or a name that does not exist.
      CheckpointError, WeightsError, TorchFileError: no usable weights there.
    """
    return dataclasses.replace(_load(spec, network, ignore), batch_size=batch_size)


def _load(spec: str, network: Network, ignore: Iterable[str]) -> Backbone:
    if spec.startswith("random:"):
        name, size, _ = _parse(_RANDOM, spec, "random:NAME or random:NAME@HEIGHTxWIDTH")
        return Backbone(name, *models.split(_untrained(name)), Preprocessing(size), step=0)
    if spec.startswith("file:"):
        name, size, path = _parse(_FILE, spec, "file:NAME=FILE or file:NAME@HEIGHTxWIDTH=FILE")
        return _fit(read(path, network), name, Preprocessing(size), ignore, path)
    if Path(spec).is_dir():
        return load_run(spec, network)
    named = read(spec, network)
    if not {"model", "input_size"} <= named.metadata.keys():
        raise ConfigError(f"--checkpoint={spec} does not say of which backbone it is; give file:NAME={spec}")
    return _fit(named, named.metadata["model"], _preprocessing(named.metadata), ignore, spec)


def load_run(path: str | Path, network: Network = "teacher") -> Backbone:
    """A network of a training run, on one device.

    Args:
      path: the run's workdir, for its newest checkpoint, or one of its checkpoints, `WORKDIR/checkpoints/STEP`.
      network: `teacher`: what the run's task serves; `student`: what its gradients change.

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
        kind = TASKS[run["task"]]
        config = freeze(kind.schema, run["config"], "checkpoint.config", old_names=True)
        task = kind(config)
        like = on_one_device(jax.eval_shape(lambda: init_state(task)))
        if network == "teacher":
            trees = checkpointer.restore_served(step, like, task.served)
        else:
            trees = checkpointer.restore(step, like, task.served).trained
    preprocessing = Preprocessing.of(run["preprocessing"]) if run["preprocessing"] else task.preprocessing
    origin = Run(workdir, config, step, run["position"].get("index", ""))
    name, graphdef, params, stats = task.serve(trees)
    return Backbone(name, graphdef, params, stats, preprocessing, step, origin, trees["params"].get("head", {}))


def read(path: str | Path, network: Network = "teacher") -> Named:
    """Reads one network of a safetensors file or a file of torch.save.

    A PyTorch file is a state dict, or a dict that holds one as `teacher` and `student`, as `state_dict` or as `model`.
    Names may begin with `module.` and `backbone.`.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no file {path}; expected a training workdir, or a PyTorch or safetensors file")
    saved, metadata = _safetensors(path) if path.suffix == ".safetensors" else (torch_file.read(path), {})
    return Named(*_split(_choose(saved, network, path), path), metadata)


def map_names(named: State, params: dict, stats: dict, ignore: Iterable[str], path: str) -> tuple[dict, dict]:
    """`torch_names.from_torch`, with the file's name before the message."""
    try:
        return torch_names.from_torch(named, params, stats, ignore=ignore)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _preprocessing(metadata: Mapping[str, str]) -> Preprocessing:
    fields = {"size": metadata["input_size"]} | {name: metadata[name] for name in ("mean", "std") if name in metadata}
    return Preprocessing.of({name: json.loads(text) for name, text in fields.items()})


def _safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
        return safetensors.numpy.load_file(path), metadata
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error


def _choose(saved: Any, network: Network, path: Path) -> dict[str, Any]:
    """The state dict within what a file holds."""
    if not isinstance(saved, dict):
        raise WeightsError(f"{path} holds a {type(saved).__name__}, expected a state dict")
    both = [key for key in ("teacher", "student") if isinstance(saved.get(key), dict)]
    if both and network not in both:
        raise WeightsError(f"{path} has no {network}, but a {both[0]}")
    if not both and network != "teacher":
        raise WeightsError(f"{path} holds one network, not a {network} beside a teacher; leave the choice out")
    nested = both or [key for key in ("state_dict", "model") if isinstance(saved.get(key), dict)]
    return saved[network if both else nested[0]] if nested else saved


def _split(named: dict[str, Any], path: Path) -> tuple[State, State]:
    """(backbone, head) without the prefixes that wrappers put before the names."""
    strange = [repr(name) for name, array in named.items() if not isinstance(array, np.ndarray)]
    if strange or not named:
        raise WeightsError(f"{path} is no state dict: {', '.join(strange[:5]) or 'it is empty'} is no tensor")
    bare = {name: name.removeprefix("module.") for name in named}
    head = {b.removeprefix("head."): named[n] for n, b in bare.items() if b.startswith(_HEAD)}
    backbone = {b.removeprefix("backbone."): named[n] for n, b in bare.items() if not b.startswith(_HEAD)}
    if len(head) + len(backbone) != len(named):
        raise WeightsError(f"{path} has names that differ only by `module.` or `backbone.`; give one network's")
    return backbone, head


def _fit(named: Named, name: str, preprocessing: Preprocessing, ignore: Iterable[str], path: str) -> Backbone:
    graphdef, params, stats = models.split(_untrained(name) if ignore else models.abstract(name))
    params, stats = map_names(named.backbone, params, stats, ignore, path)
    return Backbone(name, graphdef, params, stats, preprocessing)


def _untrained(name: str) -> Any:
    return models.create(name, rngs=nnx.Rngs(0))


def _parse(pattern: re.Pattern, spec: str, spelling: str) -> tuple[str, tuple[int, int], str]:
    match = pattern.fullmatch(spec)
    if not match:
        raise ConfigError(f"--checkpoint takes {spelling}, got {spec!r}")
    size = (int(match["height"]), int(match["width"])) if match["height"] else DEFAULT.size
    return match["name"], size, match.groupdict().get("path", "")

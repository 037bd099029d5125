"""The one way in for weights: PyTorch checkpoints, safetensors files and our own run folders.

Whatever the source, a network first becomes two state dicts under PyTorch's names, of its backbone and of its head;
`models.weights.from_torch` then maps every name or fails with the list of those that do not fit.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.training.checkpoint import Network, Trained, load_network
from cion_jax.training.state import TrainState
from cion_jax.weights import torch_file, torch_names
from cion_jax.weights.torch_names import WeightsError

DEFAULT_SIZE = (256, 128)  # height, width of the input, where neither a run nor the command line says it
_NAME = r"(?P<name>[^@=]*)(@(?P<height>[1-9]\d*)x(?P<width>[1-9]\d*))?"
_RANDOM, _FILE = re.compile(f"random:{_NAME}"), re.compile(f"file:{_NAME}=(?P<path>.+)")
_HEAD = ("head.mlp.", "head.last_layer.")  # a backbone may have a classifier called `head`

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Named:
    """One network under PyTorch's names.

    Attributes:
      backbone: names without any prefix, to arrays.
      head: of the distillation head, without `head.`; empty where the source has none.
      metadata: texts that a safetensors file carries.
      run: what the checkpoint of a run says besides; None for a file.
    """

    backbone: State
    head: State
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    run: Trained | None = None


@dataclass(frozen=True)
class Backbone:
    """A backbone as the command line names it.

    Attributes:
      name: in the registry.
      size: (height, width) of its input in pixels.
      params, stats: its trees, float32.
      step: training steps behind it, 0 if untrained, None where a file does not say.
      run: the run that it was trained in, None for files and for an untrained one.
    """

    name: str
    size: tuple[int, int]
    params: dict[str, Any]
    stats: dict[str, Any]
    step: int | None = None
    run: Trained | None = None

    def module(self) -> Any:
        """The `nnx.Module`."""
        return models.merge(models.split(models.abstract(self.name))[0], self.params, self.stats)


def load(spec: str, network: Network = "teacher", ignore: Iterable[str] = ()) -> Backbone:
    """The backbone that --checkpoint names.

    Args:
      spec: one of
        `WORKDIR`: a training run, its newest checkpoint; `WORKDIR/checkpoints/STEP`: another one of it;
        `file:NAME[@HEIGHTxWIDTH]=FILE`: weights of the backbone NAME in a PyTorch or safetensors file;
        `FILE.safetensors`: the same, of a file that `python -m cion_jax.export` wrote: it says itself what it is;
        `random:NAME[@HEIGHTxWIDTH]`: untrained, seed 0.
      network: which one of a run or of a checkpoint that holds both.
      ignore: regular expressions of names that a file may lack or have too many; a lacking one stays random.

    Raises:
      ConfigError: another spelling, or a name that does not exist.
      CheckpointError, WeightsError, TorchFileError: no usable weights there.
    """
    if spec.startswith("random:"):
        name, size, _ = _parse(_RANDOM, spec, "random:NAME or random:NAME@HEIGHTxWIDTH")
        return Backbone(name, size, *models.split(_untrained(name))[1:], step=0)
    if spec.startswith("file:"):
        name, size, path = _parse(_FILE, spec, "file:NAME=FILE or file:NAME@HEIGHTxWIDTH=FILE")
        return _fit(read(path, network), name, size, ignore, path)
    named = read(spec, network)
    if named.run:
        view = named.run.config.views.global_1
        return _fit(named, named.run.config.model.name, (view.height, view.width), ignore, spec)
    if not {"model", "input_size"} <= named.metadata.keys():
        raise ConfigError(f"--checkpoint={spec} does not say of which backbone it is; give file:NAME={spec}")
    height, width = json.loads(named.metadata["input_size"])
    return _fit(named, named.metadata["model"], (height, width), ignore, spec)


def read(path: str | Path, network: Network = "teacher") -> Named:
    """Reads one network of a run (its newest checkpoint or the one named), a safetensors file or a file of torch.save.

    A PyTorch file is a state dict, or a dict that holds one as `teacher` and `student`, as `state_dict` or as `model`.
    Names may begin with `module.` and `backbone.`.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"there is no {path}; expected a training workdir, or a PyTorch or safetensors file")
    if path.is_dir():
        run = load_network(path, network)
        backbone = torch_names.to_torch(run.params["backbone"], run.stats.get("backbone", {}))
        return Named(backbone, torch_names.to_torch(run.params["head"], {}), run=run)
    saved, metadata = _safetensors(path) if path.suffix == ".safetensors" else (torch_file.read(path), {})
    return Named(*_split(_choose(saved, network, path), path), metadata)


def start(state: TrainState, path: str, ignore: Iterable[str], shardings: TrainState) -> TrainState:
    """A fresh training state whose student and teacher both start from weights; says on stderr what was taken.

    Args:
      state: before the first step.
      path: as `read` takes it; of a source with both networks the teacher is taken.
      ignore: as in `load`; a lacking weight stays as it is in `state`.
      shardings: of the state.

    Raises:
      WeightsError: the backbone does not fit. A head that does not fit, or none, leaves the head as it is.
    """
    named = read(path)
    params, stats = state.student["params"], state.student["stats"]
    backbone, backbone_stats = _map(named.backbone, params["backbone"], stats.get("backbone", {}), ignore, path)
    try:
        head = torch_names.from_torch(named.head, params["head"], {})[0] if named.head else params["head"]
        said = "and the head" if named.head else "without a head"
    except WeightsError as error:
        head, said = params["head"], f"without its head, which is another ({str(error).splitlines()[1].strip()})"
    if jax.process_index() == 0:
        print(f"init_from: {path}, the backbone {said}", file=sys.stderr)
    student = {
        "params": params | {"backbone": backbone, "head": head},
        "stats": stats | ({"backbone": backbone_stats} if backbone_stats else {}),
    }
    student = jax.device_put(student, shardings.student)
    return dataclasses.replace(state, student=student, teacher=jax.tree.map(jnp.copy, student))


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


def _fit(named: Named, name: str, size: tuple[int, int], ignore: Iterable[str], path: str) -> Backbone:
    module = _untrained(name) if ignore else models.abstract(name)
    params, stats = _map(named.backbone, *models.split(module)[1:], ignore, path)
    return Backbone(name, size, params, stats, named.run.step if named.run else None, named.run)


def _map(named: State, params: dict, stats: dict, ignore: Iterable[str], path: str) -> tuple[dict, dict]:
    try:
        return torch_names.from_torch(named, params, stats, ignore=ignore)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _untrained(name: str) -> Any:
    return models.create(name, rngs=nnx.Rngs(0))


def _parse(pattern: re.Pattern, spec: str, spelling: str) -> tuple[str, tuple[int, int], str]:
    match = pattern.fullmatch(spec)
    if not match:
        raise ConfigError(f"--checkpoint takes {spelling}, got {spec!r}")
    size = (int(match["height"]), int(match["width"])) if match["height"] else DEFAULT_SIZE
    return match["name"], size, match.groupdict().get("path", "")

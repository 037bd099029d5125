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
from flax import nnx

from cion_jax import models
from cion_jax.common.printable import printable
from cion_jax.common.typed_config import ConfigError
from cion_jax.training.checkpoint import Network, Trained, load_network
from cion_jax.training.state import TrainState
from cion_jax.weights import positions, torch_names
from cion_jax.weights.adapt import check_weights
from cion_jax.weights.positions import POSITIONS
from cion_jax.weights.torch_names import WeightsError
from cion_jax.weights.weights_file import map_names, open_weights

DEFAULT_SIZE = (256, 128)  # height, width of the input, where neither a run nor the command line says it
_NAME = r"(?P<name>[^@=]*)(@(?P<height>[1-9]\d*)x(?P<width>[1-9]\d*))?"
_RANDOM, _FILE = re.compile(f"random:{_NAME}"), re.compile(f"file:{_NAME}=(?P<path>.+)")

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
        like = models.split(models.abstract(name))[1:]
        return _fit(read(path, network, like, size), name, size, ignore, path)
    named = read(spec, network)
    if named.run:
        view = named.run.config.views.global_1
        return _fit(named, named.run.config.model.name, (view.height, view.width), ignore, spec)
    return _fit(named, named.metadata["model"], input_size(named.metadata, spec), ignore, spec)


def read(
    path: str | Path,
    network: Network = "teacher",
    like: tuple[dict, dict] | None = None,
    size: tuple[int, int] = DEFAULT_SIZE,
) -> Named:
    """Reads one network of a run (its newest checkpoint or the one named), a safetensors file or a file of torch.save.

    Args:
      path: of the run or of the file; the network that fits the model is taken, wherever in the file it is.
      network: which one, of a source with several.
      like: (params, stats) of the model's backbone, of arrays or shapes; not needed where the source says what it is.
      size: (height, width) of the images that the weights are wanted for.
    """
    if Path(path).is_dir():
        run = load_network(path, network)
        backbone = torch_names.to_torch(run.params["backbone"], run.stats.get("backbone", {}))
        head = torch_names.to_torch(run.params["head"], {})
        check_weights(
            {f"{part}.{name}": a for part, of in (("backbone", backbone), ("head", head)) for name, a in of.items()}
        )
        return Named(backbone, head, run=run)
    opened = open_weights(path)
    if like is None:
        if not {"model", "input_size"} <= opened.metadata.keys():
            raise ConfigError(f"--checkpoint={path} does not say of which backbone it is; give file:NAME={path}")
        like = models.split(models.abstract(printable(opened.metadata["model"])))[1:]
        size = input_size(opened.metadata, path)
    return Named(*opened.network(*like, size, network), opened.metadata)


def input_size(metadata: Mapping[str, str], path: str | Path) -> tuple[int, int]:
    """(height, width) of the images that an exported file is for."""
    try:
        height, width = json.loads(metadata["input_size"])
    except (ValueError, TypeError, RecursionError):
        height = width = 0
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        said = printable(metadata["input_size"])
        raise WeightsError(f"{path} says that its images are of the size {said}, expected [height, width]")
    return height, width


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
    params, stats = state.student["params"], state.student["stats"]
    named = read(path, like=(params["backbone"], stats.get("backbone", {})))
    backbone, backbone_stats = map_names(named.backbone, params["backbone"], stats.get("backbone", {}), ignore, path)
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


def _fit(named: Named, name: str, size: tuple[int, int], ignore: Iterable[str], path: str) -> Backbone:
    _, params, stats = models.split(_untrained(name) if ignore else models.abstract(name))
    at_size = positions.shape_at(params[POSITIONS].shape, size) if POSITIONS in params else ()
    if POSITIONS in named.backbone and named.backbone[POSITIONS].shape == at_size:
        params = params | {POSITIONS: named.backbone[POSITIONS]}
    params, stats = map_names(named.backbone, params, stats, ignore, path)
    return Backbone(name, size, params, stats, named.run.step if named.run else None, named.run)


def _untrained(name: str) -> Any:
    return models.create(name, rngs=nnx.Rngs(0))


def _parse(pattern: re.Pattern, spec: str, spelling: str) -> tuple[str, tuple[int, int], str]:
    match = pattern.fullmatch(spec)
    if not match:
        raise ConfigError(f"--checkpoint takes {spelling}, got {spec!r}")
    size = (int(match["height"]), int(match["width"])) if match["height"] else DEFAULT_SIZE
    return match["name"], size, match.groupdict().get("path", "")

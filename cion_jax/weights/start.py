"""Training that starts from weights: `config.init_from`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from cion_jax.common.paths import local_path
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.tasks import TASKS
from cion_jax.training import loop
from cion_jax.training.config import RunConfig
from cion_jax.training.state import TrainState
from cion_jax.training.task import Task
from cion_jax.weights import load, torch_names
from cion_jax.weights.adapt import check_weights
from cion_jax.weights.torch_names import WeightsError
from cion_jax.weights.weights_file import map_names


def begun(config: RunConfig) -> tuple[Any, loop.Start]:
    """The task of a run's settings, and what a fresh run of it starts from: random weights, or `init_from`."""
    task = TASKS[config.task](config)
    return task, functools.partial(from_weights, task) if config.init_from else loop.as_it_is


def from_weights(task: Task, state: TrainState, shardings: TrainState) -> TrainState:
    """A fresh training state that starts from the weights of `config.init_from`; says on stderr what was taken.

    Args:
      task: of the run; of a source with both networks the teacher is taken.
      state: before the first step.
      shardings: of the state.

    Raises:
      WeightsError: the backbone does not fit. A head that does not fit, or none, leaves the head as it is.
    """
    path, ignore = str(local_path(task.config.init_from, "config.init_from")), task.config.init_ignore
    name = task.config.model.name
    backbone, named_head, of = _source(path, name, task.backbone(state.trained), ignore)
    weights = task.with_backbone(state.trained, backbone)
    weights["params"], said = _with_head(weights["params"], named_head)
    if jax.process_index() == 0:
        print(f"init_from: {path}, the backbone {said}", file=sys.stderr)
        if of and (of.mean, of.std) != (task.preprocessing.mean, task.preprocessing.std):
            print(_other_images(of, task.preprocessing), file=sys.stderr)
    return task.start(state, jax.device_put(weights, shardings.trained))


def _with_head(params: dict[str, Any], named: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Params with the source's distillation head where they have one of its shape, and what was done."""
    if not named:
        return params, "without a head"
    if "head" not in params:
        return params, f"without its distillation head, of {len(named)} tensors"
    try:
        return params | {"head": torch_names.from_torch(named, params["head"], {})[0]}, "and the head"
    except WeightsError as error:
        return params, f"without its head, which is another ({str(error).splitlines()[1].strip()})"


def _other_images(of: Preprocessing, own: Preprocessing) -> str:
    """What is to be said where weights were trained on images of another mean or std.

    Features change with it, and the running statistics of norms are of other numbers: a network that knows people
    begins as one that knows few.
    """
    return (
        f"warning: init_from was trained on images less mean={of.mean} by std={of.std}, this run takes mean={own.mean} "
        f"and std={own.std}, so the network does not begin as what it was; where the recipe has config.image.mean and "
        "config.image.std, set them to the first"
    )


def _source(
    path: str, name: str, like: dict[str, Any], ignore: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any], Preprocessing | None]:
    """Of a run or of a file: backbone `name` {"params", "stats"}, head under PyTorch's names, what its images are like.

    The last is None where a file does not say it.
    """
    kind = ""
    if Path(path).is_dir():
        task, trees, *_ = load.restore_run(path)
        if (own := task.config.model.name) != name:
            kind = f"\n  it is a run of {own}: set config.model.name to that, or start from another"
        named = torch_names.to_torch(**task.backbone(trees))
        check_weights(named)
        head = torch_names.to_torch(trees["params"].get("head", {}), {})
        of = task.preprocessing
    else:
        found = load.read(path, like=(like["params"], like["stats"]))
        named, head = found.backbone, found.head
        of = (
            load.preprocessing(found.metadata, path) if {"input_size", "mean", "std"} <= found.metadata.keys() else None
        )
    try:
        params, stats = map_names(named, like["params"], like["stats"], ignore, path)
    except WeightsError as error:
        raise WeightsError(f"{error}{kind}") from error
    return {"params": params, "stats": stats}, head, of

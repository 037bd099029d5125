"""Training that starts from weights: `config.init_from`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from cion_jax.common.paths import local_path
from cion_jax.training.state import TrainState
from cion_jax.training.task import Task
from cion_jax.weights import load, torch_names
from cion_jax.weights.torch_names import WeightsError
from cion_jax.weights.weights_file import map_names


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
    params, stats = state.trained["params"], state.trained["stats"]
    backbone, backbone_stats, named_head = _source(path, params["backbone"], stats.get("backbone", {}), ignore)
    try:
        head = torch_names.from_torch(named_head, params["head"], {})[0] if named_head else params["head"]
        said = "and the head" if named_head else "without a head"
    except WeightsError as error:
        head, said = params["head"], f"without its head, which is another ({str(error).splitlines()[1].strip()})"
    if jax.process_index() == 0:
        print(f"init_from: {path}, the backbone {said}", file=sys.stderr)
    weights = {
        "params": params | {"backbone": backbone, "head": head},
        "stats": stats | ({"backbone": backbone_stats} if backbone_stats else {}),
    }
    return task.start(state, jax.device_put(weights, shardings.trained))


def _source(path: str, params: dict, stats: dict, ignore: Iterable[str]) -> tuple[dict, dict, dict[str, Any]]:
    """(backbone's params, its stats, the head under PyTorch's names) of a run or of a file."""
    if Path(path).is_dir():
        run = load.load_run(path)
        named, head = torch_names.to_torch(run.params, run.stats), torch_names.to_torch(run.head, {})
    else:
        found = load.read(path, like=(params, stats))
        named, head = found.backbone, found.head
    return *map_names(named, params, stats, ignore, path), head

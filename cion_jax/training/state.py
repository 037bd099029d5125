"""The training state: plain nested dicts in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
      step: steps done, int32 scalar.
      trained: {"params": ..., "stats": ...} of the network that gradients change; stats are running statistics.
      kept: what the task keeps besides: a teacher and a center, a memory, or nothing ({}).
      opt_state: optimizer state.
    """

    step: jax.Array
    trained: dict[str, Any]
    kept: dict[str, Any]
    opt_state: Any


def at_path(state: TrainState, path: tuple[str, ...]) -> Any:
    """What lies at ("kept", "teacher") and the like."""
    found = getattr(state, path[0])
    for name in path[1:]:
        found = found[name]
    return found

"""What changes from step to step, as functions of the step; they trace under jit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Schedule = Callable[[ArrayLike], jax.Array]


def cosine(step: ArrayLike, start: float, end: float, steps: int, warmup: int = 0) -> jax.Array:
    """Linear warm-up from 0 to `start`, then half a cosine towards `end`.

    The warm-up includes its end point and the cosine starts at `start` again, so two adjacent steps have the same
    value; `end` is approached and not reached, as in the authors' code.

    Args:
      step: which step, 0 .. steps-1.
      start: value after the warm-up.
      end: value towards which the last step tends.
      steps: number of steps in the whole run.
      warmup: number of steps in the warm-up, less than `steps`.

    Returns:
      Scalar (or array like `step`) float.
    """
    rise = start * jnp.asarray(step) / max(warmup - 1, 1)
    phase = jnp.pi * (jnp.asarray(step) - warmup) / max(steps - warmup, 1)
    fall = end + 0.5 * (start - end) * (1 + jnp.cos(phase))
    return jnp.where(jnp.asarray(step) < warmup, rise, fall)


def constant(step: ArrayLike, value: float) -> jax.Array:
    """The same value at every step."""
    return jnp.full(jnp.shape(step), value)


def from_step(step: ArrayLike, first: int) -> jax.Array:
    """Whether a step is `first` or later."""
    return jnp.asarray(step) >= first


def steps_in(epochs: float, steps_per_epoch: Sequence[int]) -> int:
    """Steps of the first `epochs` epochs, which may be a fraction; numbers of steps may change from epoch to epoch."""
    whole = int(epochs)
    return sum(steps_per_epoch[:whole]) + round((epochs - whole) * sum(steps_per_epoch[whole : whole + 1]))


def values(schedules: Mapping[str, Schedule], step: ArrayLike) -> dict[str, jax.Array]:
    """Every schedule's value at one step."""
    return {name: schedule(step) for name, schedule in schedules.items()}

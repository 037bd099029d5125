"""Learning rates of the released fine-tuning recipes, as functions of epoch or step; they trace under jit."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_START, _FLOOR = 0.01, 0.002  # of TransReID's base rate


def transreid(epoch: ArrayLike, base: float, factor: float = 1.0, *, epochs: int = 120, warmup: float = 20) -> Array:
    """Learning rate of one epoch in TransReID: linear warm-up, then a cosine.

    As released, the cosine counts from the first epoch and not from the end of the warm-up, so the rate never gets to
    its peak: it jumps down where the warm-up ends (0.95 -> 0.93 with 20 of 120 epochs). Start and floor are shares of
    `base` whatever `factor` is.

    Args:
      epoch: 0 .. epochs-1.
      base: learning rate of the recipe.
      factor: by which a group's rate exceeds it, 2 for biases.
      epochs: in the whole run.
      warmup: epochs.
    """
    epoch, peak = jnp.asarray(epoch), base * factor
    start, floor = _START * base, _FLOOR * base
    rise = start + epoch * (peak - start) / max(warmup, 1)
    fall = floor + 0.5 * (peak - floor) * (1 + jnp.cos(jnp.pi * epoch / epochs))
    return jnp.where(epoch < warmup, rise, fall)


def mgn(step: ArrayLike, base: float, *, steps: int, warmup: int, flat: int, end: float = 7.7e-7) -> Array:
    """Learning rate of one step in MGN (FastReID): linear warm-up from a hundredth, constant, then a cosine.

    Args:
      step: 0 .. steps-1.
      base: learning rate between warm-up and cosine.
      steps: in the whole run.
      warmup: steps until the rate is `base`.
      flat: step at which the cosine starts, at least `warmup`.
      end: rate to which the cosine tends; it is not scaled.
    """
    step = jnp.asarray(step)
    rise = base * (_START + (1 - _START) * step / max(warmup, 1))
    phase = jnp.clip((step - flat) / max(steps - flat, 1), 0, 1)
    fall = end + 0.5 * (base - end) * (1 + jnp.cos(jnp.pi * phase))
    return jnp.where(step < warmup, rise, fall)

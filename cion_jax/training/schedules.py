"""Warm-up and cosine schedules as functions of the step; they trace under jit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import jax.numpy as jnp
from jax.typing import ArrayLike

from cion_jax.training.config import OptimizerConfig


def cosine(step: ArrayLike, start: float, end: float, steps: int, warmup: int = 0):
    """Linear warm-up from 0 to `start`, then half a cosine towards `end`.

    The warm-up includes its end point and the cosine starts at `start` again, so two adjacent steps have the same
    value; `end` is approached and not reached (the released recipe; spec section 4).

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


@dataclass(frozen=True)
class Schedules:
    """What changes from step to step.

    Attributes:
      steps: steps in the whole run, the length that every schedule spans.
      warmup: steps of linear learning-rate warm-up.
      freeze: steps in which the prototypes do not train.
      learning_rate, weight_decay, momentum: (start, end) of each.
    """

    steps: int
    warmup: int
    freeze: int
    learning_rate: tuple[float, float]
    weight_decay: tuple[float, float]
    momentum: tuple[float, float]

    @classmethod
    def of(cls, config: OptimizerConfig, batch_size: int, steps_per_epoch: Sequence[int]) -> Self:
        """Schedules that span all epochs, whatever their numbers of steps (these change with K).

        Args:
          config: peaks, ends, and lengths in epochs.
          batch_size: images in the global batch, by which the learning rate is scaled.
          steps_per_epoch: steps of every epoch of the run.
        """

        def steps_in(epochs: float) -> int:
            whole = int(epochs)
            return sum(steps_per_epoch[:whole]) + round((epochs - whole) * sum(steps_per_epoch[whole : whole + 1]))

        return cls(
            steps=sum(steps_per_epoch),
            warmup=steps_in(config.warmup_epochs),
            freeze=steps_in(config.freeze_epochs),
            learning_rate=(config.learning_rate * batch_size / 256, config.final_learning_rate),
            weight_decay=config.weight_decay,
            momentum=(config.teacher_momentum, 1.0),
        )

    def at(self, step: ArrayLike) -> dict:
        """Values at one step: learning_rate, weight_decay, momentum (scalars) and last_layer_trains (bool)."""
        return {
            "learning_rate": cosine(step, *self.learning_rate, self.steps, self.warmup),
            "weight_decay": cosine(step, *self.weight_decay, self.steps),
            "momentum": cosine(step, *self.momentum, self.steps),
            "last_layer_trains": jnp.asarray(step) >= self.freeze,
        }

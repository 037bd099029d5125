"""The training state: plain nested dicts in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax import models
from cion_jax.tasks.distill.network import Network
from cion_jax.training import optimizer as adamw
from cion_jax.training.config import Config


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step changes.

    Attributes:
      step: steps done, int32 scalar.
      student, teacher: {"params": ..., "stats": ...}; stats are BatchNorm's running statistics, each network's own.
      opt_state: optimizer state.
      center: [P] fp32, EMA of the teacher's logits.
    """

    step: jax.Array
    student: dict[str, Any]
    teacher: dict[str, Any]
    opt_state: Any
    center: jax.Array


def make_network(config: Config) -> Network:
    """The network of a config, with random parameters from its seed."""
    m = config.model
    return Network(
        m.name,
        prototypes=m.prototypes,
        hidden=m.hidden,
        bottleneck=m.bottleneck,
        dtype=jnp.dtype(m.dtype),
        drop_path=m.drop_path,
        remat=m.remat,
        rngs=nnx.Rngs(config.seed),
    )


def graph(config: Config):
    """The network's structure without arrays, for `models.merge`."""
    return models.split(nnx.eval_shape(lambda: make_network(config)))[0]


def init(config: Config, optimizer) -> TrainState:
    """State before the first step: the teacher equals the student, the center is zero."""
    _, params, stats = models.split(make_network(config))
    student = {"params": params, "stats": stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        student=student,
        teacher=jax.tree.map(jnp.copy, student),
        opt_state=optimizer.init(params),
        center=jnp.zeros(config.model.prototypes, jnp.float32),
    )


def abstract(config: Config) -> TrainState:
    """`init` with shapes for arrays."""
    return jax.eval_shape(lambda: init(config, adamw.build()))

"""One training step: views, teacher, student, loss, update, teacher average. Pure."""

from __future__ import annotations

from typing import Any

import jax
import optax

from cion_jax import models
from cion_jax import optimizer as adamw
from cion_jax.config import Config
from cion_jax.data.views import make_views
from cion_jax.loss import identity_guided_loss, update_centre
from cion_jax.schedules import Schedules
from cion_jax.sharding import LOGITS
from cion_jax.state import TrainState


def _apply(graphdef, network: dict, views, key, mesh):
    """Train-mode forward pass -> (logits, statistics after). The teacher, too, normalises with its own batch
    statistics and keeps running ones of its own, as in the released code."""
    module = models.merge(graphdef, network["params"], network["stats"])
    logits = module(views, train=True, key=key)
    logits = jax.lax.with_sharding_constraint(logits, jax.sharding.NamedSharding(mesh, LOGITS))
    return logits, models.split(module)[2]


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    k: int,
    config: Config,
    graphdef: Any,
    optimizer: Any,
    schedules: Schedules,
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on a batch of whole identity groups of `k`.

    Args:
      state: before the step.
      batch: `image` [B, H, W, 3] uint8 canvases and `size` [B, 2] int32, the images' heights and widths on them.

    Returns:
      (state after the step, measurements): scalars, measured before the update but for `update_norm`.
    """
    at = schedules.at(state.step)
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    key_views, key_student, key_teacher = jax.random.split(key, 3)
    x_BUHWC, x_BLHWC = make_views(key_views, batch["image"], batch["size"], config.views)
    views = (x_BUHWC, x_BLHWC) if config.views.local_views else (x_BUHWC,)
    t_BUP, teacher_stats = _apply(graphdef, state.teacher, (x_BUHWC,), key_teacher, mesh)

    def objective(params):
        student = {"params": params, "stats": state.student["stats"]}
        z_BVP, stats = _apply(graphdef, student, views, key_student, mesh)
        loss, measured = identity_guided_loss(z_BVP, t_BUP, state.centre, k, config.loss)
        return loss, (stats, measured)

    before = state.student["params"]
    (loss, (stats, measured)), gradients = jax.value_and_grad(objective, has_aux=True)(before)
    params, opt_state, updates = adamw.update(optimizer, gradients, state.opt_state, before, at)
    measured |= {
        "loss": loss,
        "gradient_norm": optax.global_norm(gradients),
        "parameter_norm": optax.global_norm(before),
        "update_norm": optax.global_norm(updates),
    }
    teacher = adamw.ema(state.teacher["params"], params, at["momentum"])
    after = TrainState(
        step=state.step + 1,
        student={"params": params, "stats": stats},
        teacher={"params": teacher, "stats": teacher_stats},
        opt_state=opt_state,
        centre=update_centre(state.centre, t_BUP, config.loss),
    )
    return after, measured | {n: at[n] for n in ("learning_rate", "weight_decay", "momentum")}


def compile_step(shardings: Any, **static: Any):
    """`train_step` under jit, the state donated: f(state, batch, k) -> (state, measurements)."""
    replicated = jax.sharding.NamedSharding(static["mesh"], jax.sharding.PartitionSpec())
    return jax.jit(
        lambda state, batch, k: train_step(state, batch, k=k, **static),
        static_argnums=2,
        donate_argnums=0,
        out_shardings=(shardings, replicated),
    )

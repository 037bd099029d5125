"""One training step: views, teacher, student, loss, update, teacher average. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from cion_jax import models
from cion_jax.data.views import make_views
from cion_jax.distributed import sharding
from cion_jax.distributed.sharding import BATCH
from cion_jax.tasks.distill.head import product
from cion_jax.tasks.distill.loss import Axes, Logits, Targets, make_targets, student_loss
from cion_jax.training import optimizer as adamw
from cion_jax.training import state as states
from cion_jax.training.config import Config
from cion_jax.training.schedules import Schedules
from cion_jax.training.state import TrainState

AXES = Axes(images=("data", "fsdp"), prototypes=("model",))
KERNEL, SHIFT = P(None, "model"), P("model")
TARGETS: Any = Targets(SHIFT, BATCH)  # type: ignore[arg-type]  # where the arrays lie instead of them


def _apply(graphdef, network: dict, views, key, mesh):
    """Train-mode forward pass -> ((embeddings, prototypes), statistics after). The teacher, too, normalizes with its
    own batch statistics and keeps running ones of its own, as in the released code."""
    params = sharding.gather(network["params"], mesh)
    module = models.merge(graphdef, params, network["stats"])
    return module(views, train=True, key=key), models.split(module)[2]


def _targets(config: Config, x_BUF, kernel_FP, center_P):
    teacher = _logits(config, x_BUF, kernel_FP)
    return make_targets(teacher, center_P, config.loss, AXES)


def _loss(config: Config, k: int, student, teacher, targets: Targets):
    return student_loss(_logits(config, *student), _logits(config, *teacher), targets, k, config.loss, AXES)


def _logits(config: Config, x_BVF, kernel_FP) -> Logits:
    # Said before the loop over parts, so that their gradients cross devices once, after it.
    x_BVF = jax.lax.pcast(x_BVF, AXES.prototypes, to="varying")
    kernel_FP = jax.lax.pcast(kernel_FP, AXES.images, to="varying")
    return Logits.against(x_BVF, kernel_FP, partial(product, dtype=config.model.dtype), config.loss.chunk)


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
    teacher, teacher_stats = _apply(graphdef, state.teacher, (x_BUHWC,), key_teacher, mesh)
    # The logits [B, V, P] are split over images and prototypes; every device sees its own part of them only.
    on_devices = partial(jax.shard_map, mesh=mesh)
    targets, center = on_devices(
        partial(_targets, config), in_specs=(BATCH, KERNEL, SHIFT), out_specs=(TARGETS, SHIFT)
    )(*teacher, state.center)
    loss_of = on_devices(
        partial(_loss, config, k),
        in_specs=((BATCH, KERNEL), (BATCH, KERNEL), TARGETS),
        out_specs=(P(), P()),
    )

    def objective(params, stats, part, number):
        views, x_BUF, norm_BU = part
        network = {"params": params, "stats": stats}
        key = jax.random.fold_in(key_student, number) if config.train.accumulate > 1 else key_student
        student, stats = _apply(graphdef, network, views, key, mesh)
        loss, measured = loss_of(student, (x_BUF, teacher[1]), Targets(targets.shift_P, norm_BU))
        return loss, (stats, measured | {"loss": loss})

    before = state.student["params"]
    gradients, stats, measured = _accumulate(
        jax.grad(objective, has_aux=True),
        before,
        state.student["stats"],
        sharding.split_batch((views, teacher[0], targets.norm_BU), config.train.accumulate, mesh),
    )
    params, opt_state, updates = adamw.update(optimizer, gradients, state.opt_state, before, at)
    measured |= {
        "gradient_norm": optax.global_norm(gradients),
        "parameter_norm": optax.global_norm(before),
        "update_norm": optax.global_norm(updates),
    }
    after = TrainState(
        step=state.step + 1,
        student={"params": params, "stats": stats},
        teacher={"params": adamw.ema(state.teacher["params"], params, at["momentum"]), "stats": teacher_stats},
        opt_state=opt_state,
        center=center,
    )
    return after, measured | {n: at[n] for n in ("learning_rate", "weight_decay", "momentum")}


def _accumulate(gradient, params, stats, parts):
    """Means of the gradients and measurements over the parts [A, ...] of a batch, and the statistics after all."""
    count = len(jax.tree.leaves(parts)[0])

    def add(carry, part):
        total, stats, number = carry
        found, (stats, measured) = gradient(params, stats, part, number)
        return (jax.tree.map(jnp.add, total, found), stats, number + 1), measured

    start = jax.tree.map(jnp.zeros_like, params), stats, 0
    if count == 1:
        (total, stats, _), measured = add(start, jax.tree.map(lambda x: x[0], parts))
        return total, stats, measured
    (total, stats, _), measured = jax.lax.scan(add, start, parts)
    return jax.tree.map(lambda x: x / count, total), stats, jax.tree.map(jnp.mean, measured)


class Trainer(NamedTuple):
    """What a run needs of its config and mesh.

    Attributes:
      step: f(state, batch, k) -> (state, measurements), `train_step` under jit; donates the state.
      init: f() -> state before the first step, where it is to lie.
      like: abstract state, with shardings.
      shardings: of the state.
    """

    step: jax.stages.Wrapped
    init: jax.stages.Wrapped
    like: TrainState
    shardings: TrainState


def make_trainer(config: Config, mesh: jax.sharding.Mesh, steps_per_epoch: Sequence[int]) -> Trainer:
    """Puts a run's step together; nothing is compiled or computed yet.

    Within the step the compiler places what no rule names, also on a mesh whose axes are Explicit outside of it.

    Args:
      config: of the run.
      mesh: of the run.
      steps_per_epoch: one number for every epoch, for the schedules.

    Raises:
      ConfigError: the devices' shares of a batch are not whole identity groups, or an array cannot be split.
    """
    ks = [k for _, k in config.curriculum]
    sharding.check_batch(config.data.batch_size, ks, config.train.accumulate, mesh)
    optimizer = adamw.build()
    init = partial(states.init, config, optimizer)
    like = jax.eval_shape(init)
    shardings = sharding.state_shardings(like, mesh)
    out = shardings, jax.sharding.NamedSharding(mesh, P())
    explicit = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit]
    function = partial(
        train_step,
        config=config,
        graphdef=states.graph(config),
        optimizer=optimizer,
        schedules=Schedules.of(config.optimizer, config.data.batch_size, steps_per_epoch),
        mesh=jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names)),
    )

    def step(state, batch, k):
        call = partial(function, k=k)
        if explicit:
            call = jax.sharding.auto_axes(call, axes=tuple(explicit), out_sharding=out)
        return call(state, batch)

    return Trainer(
        step=jax.jit(step, static_argnums=2, donate_argnums=0, out_shardings=out),
        init=jax.jit(init, out_shardings=shardings),
        like=sharding.abstract(like, shardings),
        shardings=shardings,
    )

"""One training step of any task, and the programs of a run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from cion_jax.distributed import sharding
from cion_jax.training import schedules
from cion_jax.training.optimizer import Optimizer
from cion_jax.training.schedules import Schedule
from cion_jax.training.state import TrainState
from cion_jax.training.task import Context, Task, Tree


def train_step(
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    task: Task,
    optimizer: Optimizer,
    scheduled: Mapping[str, Schedule],
    context: Context,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step.

    Args:
      state: before the step.
      batch: `task.fields` of a batch, e.g. `image` [B, H, W, 3] uint8 canvases and `size` [B, 2] int32, the images'
        heights and widths on them.

    Returns:
      (state after the step, measurements): scalars, measured before the update but for `update_norm`.
    """
    at = schedules.values(scheduled, state.step)
    key = jax.random.fold_in(jax.random.key(task.config.seed), state.step)
    prepared = task.prepare(state, batch, key, context)
    count = task.config.train.accumulate

    def objective(params: Tree, stats: Tree, images: Tree, number: Any) -> tuple[jax.Array, Tree]:
        key = jax.random.fold_in(prepared.key, number) if count > 1 else prepared.key
        loss, (stats, measured) = task.loss(params, stats, images, prepared.shared, key, context)
        return loss, (stats, measured | {"loss": loss})

    before = state.trained["params"]
    microbatches = sharding.split_batch(prepared.images, count, context.mesh)
    gradient = jax.grad(objective, has_aux=True)
    gradients, stats, measured = _accumulate(gradient, before, state.trained["stats"], microbatches)
    with jax.named_scope("optimizer"):
        params, opt_state, updates = optimizer.update(gradients, state.opt_state, before, at)
        kept = task.carry(state, params, prepared, at)
        after = TrainState(state.step + 1, {"params": params, "stats": stats}, kept, opt_state)
        norms = {"gradient_norm": gradients, "parameter_norm": before, "update_norm": updates}
        measured |= {name: optax.tree.norm(tree) for name, tree in norms.items()}
    return after, measured | {name: value for name, value in at.items() if value.dtype != bool}


def _accumulate(
    gradient: Callable, params: Tree, stats: Tree, microbatches: Tree
) -> tuple[Tree, Tree, dict[str, jax.Array]]:
    """Means of the gradients and measurements over the microbatches [A, ...], and the statistics after all."""
    count = len(jax.tree.leaves(microbatches)[0])

    def add(carry: Tree, images: Tree) -> tuple[Tree, dict[str, jax.Array]]:
        total, stats, number = carry
        found, (stats, measured) = gradient(params, stats, images, number)
        return (jax.tree.map(jnp.add, total, found), stats, number + 1), measured

    start = jax.tree.map(jnp.zeros_like, params), stats, 0
    if count == 1:
        (total, stats, _), measured = add(start, jax.tree.map(lambda x: x[0], microbatches))
        return total, stats, measured
    (total, stats, _), measured = jax.lax.scan(add, start, microbatches)
    return jax.tree.map(lambda x: x / count, total), stats, jax.tree.map(jnp.mean, measured)


class Trainer(NamedTuple):
    """What a run needs of its task and mesh.

    Attributes:
      step: f(state, batch, static) -> (state, measurements), `train_step` under jit; donates the state.
      init: f() -> state before the first step, where it is to lie.
      like: abstract state, with shardings.
      shardings: of the state.
    """

    step: jax.stages.Wrapped
    init: jax.stages.Wrapped
    like: TrainState
    shardings: TrainState


def init_state(task: Task) -> TrainState:
    """The state before the first step; traces under jit."""
    trained, kept = task.init()
    return TrainState(jnp.zeros((), jnp.int32), trained, kept, task.optimizer().init(trained["params"]))


def make_trainer(task: Task, mesh: jax.sharding.Mesh, steps_per_epoch: Sequence[int]) -> Trainer:
    """Puts a run's step together; nothing is compiled or computed yet.

    Within the step the compiler places what no rule names, also on a mesh whose axes are Explicit outside of it.

    Args:
      task: of the run.
      mesh: of the run.
      steps_per_epoch: one number for every epoch, for the schedules.

    Raises:
      ConfigError: the task does not fit on the mesh, or an array cannot be split.
    """
    task.check(mesh)
    init = partial(init_state, task)
    like = jax.eval_shape(init)
    shardings = sharding.state_shardings(like, mesh, task.rules)
    out = shardings, jax.sharding.NamedSharding(mesh, P())
    explicit = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit]
    inner = jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    function = partial(train_step, task=task, optimizer=task.optimizer(), scheduled=task.schedules(steps_per_epoch))

    def step(state: TrainState, batch: Mapping[str, jax.Array], static: Hashable) -> Any:
        call = partial(function, context=Context(inner, static))
        if explicit:
            call = jax.sharding.auto_axes(call, axes=tuple(explicit), out_sharding=out)
        return call(state, batch)

    return Trainer(
        step=jax.jit(step, static_argnums=2, donate_argnums=0, out_shardings=out),
        init=jax.jit(init, out_shardings=shardings),
        like=sharding.abstract(like, shardings),
        shardings=shardings,
    )

"""SGD, Adam and AdamW over groups of parameters that differ in learning rate, weight decay and start.

Adam and SGD are PyTorch's: decay is coupled, that is, it is added to the gradient. AdamW's is not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from cion_jax.common.paths import path_name
from cion_jax.common.typed_config import ConfigError

Params = Any
Rate = Callable[[float], ArrayLike]
NEVER = -1  # a group that does not train


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that are treated alike.

    Attributes:
      pattern: regular expression, searched for in a parameter's path (`backbone/layer1/0/bn1/scale`).
      rate: multiplier of the learning rate, >= 0.
      decay: multiplier of the weight decay, >= 0.
      frozen_until: first step that trains these parameters; until then nothing happens to them: no decay, no
        moments, no step count, so their bias correction starts later. NEVER: they do not train at all.
    """

    pattern: str
    rate: float = 1.0
    decay: float = 1.0
    frozen_until: int = 0


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What turns gradients into directions.

    Attributes:
      kind: `sgd`, `adam` (both with coupled decay) or `adamw`.
      betas: of the moments; of SGD the first is the momentum: v = beta v + gradient.
      eps: added to the root of the second moment.
      clip: every tensor's gradient is scaled down to this norm; 0 for none.
    """

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 0.0


def build(settings: Optimizer, groups: Sequence[Group]) -> optax.GradientTransformationExtraArgs:
    """Gradients -> updates.

    `update` takes besides the usual arguments, each of this step: `step` (number of the step), `rate` (multiplier of a
    group -> learning rate) and `weight_decay`.

    Args:
      settings: of all groups.
      groups: the first one whose pattern is found in a parameter's path has it.

    Raises (when initialized):
      ConfigError: a parameter is in no group.
    """
    parts = {str(i): _part(settings, group) for i, group in enumerate(groups)}
    grouped = optax.partition(parts, lambda params: assign(params, groups))
    return optax.chain(clip_each(settings.clip), grouped) if settings.clip else grouped


def update(optimizer, gradients: Params, opt_state, params: Params, *, step, rate: Rate, weight_decay: ArrayLike):
    """One optimizer step.

    Args:
      optimizer: from `build`.
      gradients, params: nested dicts of one structure.
      opt_state: state of the optimizer.
      step: which step of the run, from 0 on.
      rate: multiplier of a group -> its learning rate in this step.
      weight_decay: of this step, before the groups' multipliers.

    Returns:
      (params, opt_state, updates).
    """
    extra = {"step": step, "rate": rate, "weight_decay": weight_decay}
    updates, opt_state = optimizer.update(gradients, opt_state, params, **extra)
    return optax.apply_updates(params, updates), opt_state, updates


def assign(params: Params, groups: Sequence[Group]) -> Params:
    """A tree like `params` with the number of every leaf's group, as text.

    Raises:
      ConfigError: a leaf is in no group.
    """
    patterns = [re.compile(group.pattern) for group in groups]

    def number(path, _) -> str:
        name = path_name(path)
        found = next((i for i, pattern in enumerate(patterns) if pattern.search(name)), None)
        if found is None:
            raise ConfigError(
                f"the parameter {name} is in none of the optimizer's groups {[g.pattern for g in groups]}; "
                "end them with one whose pattern is '.*'"
            )
        return str(found)

    return jax.tree_util.tree_map_with_path(number, params)


def clip_each(limit: float) -> optax.GradientTransformation:
    """Scales every tensor's gradient down to norm `limit`, each on its own."""

    def clip(gradient):
        norm = jnp.linalg.norm(gradient.astype(jnp.float32))
        return gradient * jnp.minimum(1.0, limit / (norm + 1e-6)).astype(gradient.dtype)

    return optax.stateless(lambda gradients, params: jax.tree.map(clip, gradients))


def _part(settings: Optimizer, group: Group) -> optax.GradientTransformation:
    if group.frozen_until == NEVER:
        return optax.set_to_zero()
    first, second = settings.betas
    adam = optax.scale_by_adam(first, second, settings.eps)
    decay = _decay(group.decay)
    order = {"sgd": (decay, optax.trace(first)), "adam": (decay, adam), "adamw": (adam, decay)}[settings.kind]
    part = optax.chain(*order, _descend(group.rate))
    if not group.frozen_until:
        return part
    return optax.conditionally_mask(part, lambda _, *, step, **__: step >= group.frozen_until, forward_extra_args=True)


def _decay(factor: float) -> optax.GradientTransformationExtraArgs:
    """Adds weight_decay * factor * parameter."""

    def add(updates, state, params, *, weight_decay, **_):
        return jax.tree.map(lambda u, p: u + weight_decay * factor * p, updates, params), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, add)


def _descend(factor: float) -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the group's learning rate."""

    def scale(updates, state, params=None, *, rate, **_):
        return jax.tree.map(lambda u: -rate(factor) * u, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, scale)

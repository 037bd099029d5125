"""AdamW, Adam and SGD over ordered groups of parameters, each with its own schedules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from cion_jax.common.paths import path_name

Params = Any
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Parameters that are treated alike.

    Attributes:
      name: of the group's state in a checkpoint.
      pattern: regular expression, searched for in the path of a parameter (`backbone/bn1/scale`).
      learning_rate: name of the schedule.
      decay: which parameters weight decay shrinks: all, `matrices` (neither biases nor vectors), none.
      trains: name of a schedule that says whether the group trains at a step; True for always, False for never. While
        it does not train nothing at all happens to it: no moment, no step count, so its bias correction starts later.
    """

    name: str
    pattern: str
    learning_rate: str = "learning_rate"
    decay: Literal["all", "matrices", "none"] = "all"
    trains: str | bool = True


@dataclass(frozen=True)
class Optimizer:
    """One rule of updates for all groups.

    `adamw`: decoupled decay, lr * (direction + decay * parameter) (arXiv 1711.05101). `adam` and `sgd`: decay is added
    to the gradient before the moments, as in PyTorch; the first velocity of `sgd` is the gradient itself.

    Attributes:
      kind: see above.
      groups: ordered; the first whose pattern is found in a parameter's path takes it. They cover every parameter.
      clip: greatest norm of the gradient of one tensor, each on its own; None: no clipping.
      betas, eps: of Adam.
      momentum: of SGD.
    """

    kind: Literal["adamw", "adam", "sgd"]
    groups: Sequence[Group]
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9

    def init(self, params: Params) -> Any:
        """State before the first step; raises ValueError where no group takes a parameter."""
        return self._transform.init(params)

    def update(self, gradients: Params, opt_state: Any, params: Params, at: Values) -> tuple[Params, Any, Params]:
        """One step.

        Args:
          gradients, params: nested dicts of one structure.
          opt_state: from `init` or the step before.
          at: values of this step by the names of their schedules; `weight_decay` and what the groups name.

        Returns:
          (params, opt_state, updates).
        """
        if self.kind != "adamw":
            gradients = self._map(lambda group, path, g, p: g + self._decay(group, path, p, at) * p, gradients, params)
        flags = {name: at[name] for name in self._flags}
        directions, opt_state = self._transform.update(gradients, opt_state, params, **flags)

        def scaled(group: Group, path: str, direction: jax.Array, param: jax.Array) -> jax.Array:
            if self.kind == "adamw":
                decay = self._decay(group, path, param, at)
                if isinstance(group.trains, str):
                    decay = decay * at[group.trains]
                direction = direction + decay * param
            return -at[group.learning_rate] * direction

        updates = self._map(scaled, directions, params)
        return optax.apply_updates(params, updates), opt_state, updates

    def decays(self, path: str, param: jax.Array) -> bool:
        """Whether weight decay shrinks a parameter."""
        group = self.group(path)
        matrix = param.ndim > 1 and not path.endswith("/bias")
        return bool(group.trains) and (group.decay == "all" or (group.decay == "matrices" and matrix))

    def group(self, path: str) -> Group:
        """The group that takes a parameter."""
        found = next((group for group in self.groups if re.search(group.pattern, path)), None)
        if found is None:
            raise ValueError(f"no group of the optimizer takes {path}; add one, or a last one with an empty pattern")
        return found

    def _decay(self, group: Group, path: str, param: jax.Array, at: Values) -> Any:
        return at["weight_decay"] * self.decays(path, param)

    def _map(self, function: Any, *trees: Params) -> Params:
        def one(path: Any, *leaves: jax.Array) -> jax.Array:
            name = path_name(path)
            return function(self.group(name), name, *leaves)

        return jax.tree_util.tree_map_with_path(one, *trees)

    @property
    def _flags(self) -> list[str]:
        return sorted({group.trains for group in self.groups if isinstance(group.trains, str)})

    @cached_property
    def _transform(self) -> optax.GradientTransformationExtraArgs:
        by_group = {group.name: self._directions(group) for group in self.groups}
        parts = optax.partition(by_group, lambda params: self._map(lambda group, path, _: group.name, params))
        return parts if self.clip is None else optax.chain(clip_each(self.clip), parts)

    def _directions(self, group: Group) -> optax.GradientTransformation:
        if group.trains is False:
            return optax.set_to_zero()
        rule: Any = optax.trace(decay=self.momentum)
        if self.kind != "sgd":
            rule = optax.scale_by_adam(b1=self.betas[0], b2=self.betas[1], eps=self.eps)
        if group.trains is True:
            return rule
        name = group.trains
        return optax.conditionally_mask(rule, lambda step, **flags: flags[name], forward_extra_args=True)


def ema(average: Params, params: Params, momentum: jax.Array) -> Params:
    """Averaged parameters after a step: momentum * average + (1 - momentum) * params."""
    return jax.tree.map(lambda a, p: momentum * a + (1 - momentum) * p, average, params)


def clip_each(norm: float) -> optax.GradientTransformation:
    """Scales every tensor's gradient down to `norm`, each on its own."""

    def clip(gradient: jax.Array) -> jax.Array:
        found = jnp.linalg.norm(gradient.astype(jnp.float32))
        return gradient * jnp.minimum(1.0, norm / (found + 1e-6)).astype(gradient.dtype)

    return optax.stateless(lambda gradients, params: jax.tree.map(clip, gradients))

"""AdamW of the released recipe: per-tensor clipping, scheduled decay, prototypes that join later, EMA teacher."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from cion_jax.common.paths import path_name

Params = Any

CLIP_NORM = 3.0
LAST_LAYER = "last_layer"
FROZEN = "weight_g"


def build() -> optax.GradientTransformationExtraArgs:
    """Gradients -> AdamW directions, without learning rate and decay.

    `update` takes `last_layer_trains` (bool scalar) besides the usual arguments. While it is false nothing at all
    happens to the prototypes: no moment and no step count, so their bias correction starts later.
    """
    adam = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)
    late = optax.conditionally_mask(adam, _last_layer_trains, forward_extra_args=True)
    parts = {"trained": adam, LAST_LAYER: late, FROZEN: optax.set_to_zero()}
    return optax.chain(_clip_each(CLIP_NORM), optax.partition(parts, _labels))


def update(optimizer, gradients: Params, opt_state, params: Params, at: dict):
    """One optimizer step.

    Args:
      optimizer: from `build`.
      gradients, params: nested dicts of one structure.
      opt_state: state of the optimizer.
      at: values of this step (`schedules.Schedules.at`).

    Returns:
      (params, opt_state, updates): decay is decoupled, lr * weight_decay * parameter, and leaves out biases, vectors
      and whatever does not train in this step.
    """
    directions, opt_state = optimizer.update(gradients, opt_state, params, last_layer_trains=at["last_layer_trains"])

    def scaled(path, direction, param):
        decay = at["weight_decay"] * decays(path, param)
        if LAST_LAYER in path_name(path):
            decay = decay * at["last_layer_trains"]
        return -at["learning_rate"] * (direction + decay * param)

    updates = jax.tree_util.tree_map_with_path(scaled, directions, params)
    return optax.apply_updates(params, updates), opt_state, updates


def ema(teacher: Params, student: Params, momentum: jax.Array) -> Params:
    """Teacher parameters after a step: momentum * teacher + (1 - momentum) * student."""
    return jax.tree.map(lambda t, s: momentum * t + (1 - momentum) * s, teacher, student)


def decays(path, param) -> bool:
    """Whether weight decay applies: neither to biases and vectors, nor to the frozen norms of the prototypes."""
    name = path_name(path)
    return param.ndim > 1 and not name.endswith("/bias") and not name.endswith(FROZEN)


def _last_layer_trains(step, *, last_layer_trains, **_):
    del step
    return last_layer_trains


def _labels(params: Params) -> Params:
    def label(path, _):
        name = path_name(path)
        return FROZEN if name.endswith(FROZEN) else LAST_LAYER if LAST_LAYER in name else "trained"

    return jax.tree_util.tree_map_with_path(label, params)


def _clip_each(limit: float) -> optax.GradientTransformation:
    """Scales every tensor's gradient down to norm `limit`, each on its own."""

    def clip(gradient):
        norm = jnp.linalg.norm(gradient.astype(jnp.float32))
        return gradient * jnp.minimum(1.0, limit / (norm + 1e-6)).astype(gradient.dtype)

    return optax.stateless(lambda gradients, params: jax.tree.map(clip, gradients))

"""GELU by the error function, in two spellings."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from cion_jax.models.ops import wide

# Abramowitz and Stegun 7.1.26: erf z = 1 - (a1 t + ... + a5 t^5) exp(-z^2), t = 1 / (1 + p z), z >= 0, within 1.5e-7.
_P = 0.3275911
_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)

Activation = Callable[[jax.Array], jax.Array]


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function, not by its tanh approximation; computed in float32 or wider.

    The backward pass starts from `x` alone: left to itself XLA keeps three arrays of its size.
    """
    return (wide(x) * _normal_cdf(wide(x))).astype(x.dtype)


def _gelu_backward(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    x, g = jax.lax.optimization_barrier((x, g))  # or the forward pass's error function would be kept after all
    y = wide(x)
    density = jnp.exp(-0.5 * y * y) * math.sqrt(0.5 / math.pi)
    return ((wide(g) * (_normal_cdf(y) + y * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


@jax.custom_vjp
def gelu_in_one_pass(x: jax.Array) -> jax.Array:
    """GELU whose derivative is computed with its value and kept in its place: the backward pass is one product.

    One exponential serves distribution and density. Within 5e-7 of `gelu` in float32; in bfloat16 value and derivative
    are `gelu`'s, rounded.
    """
    return _value_and_slope(x)[0]


def _value_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = wide(x)
    bell = jnp.exp(-0.5 * y * y)
    t = 1 / (1 + _P * math.sqrt(0.5) * jnp.abs(y))
    total = jnp.zeros_like(t)
    for a in reversed(_A):
        total = total * t + a
    tail = 0.5 * bell * t * total  # of the normal distribution, beyond |x|
    below = jnp.where(y < 0, tail, 1 - tail)
    return (y * below).astype(x.dtype), (below + math.sqrt(0.5 / math.pi) * y * bell).astype(x.dtype)


gelu_in_one_pass.defvjp(_value_and_slope, lambda slope, g: ((wide(g) * wide(slope)).astype(g.dtype),))

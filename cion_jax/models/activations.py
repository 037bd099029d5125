"""GELU by the error function."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from cion_jax.models.ops import wide


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

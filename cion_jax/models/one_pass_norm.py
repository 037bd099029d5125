"""LayerNorm with the sum before it, so that a shortcut and the norm behind it can be one pass through memory.

Value and gradient are chains of a mean over the last axis and of what is computed from it: the form that XLA's GPU
backend looks for to make one kernel of it. A variance as E[x^2] - E[x]^2 is two sums beside each other, and automatic
differentiation makes more of them.
"""

from __future__ import annotations

import functools
import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cion_jax.models.layers import LayerNorm
from cion_jax.models.ops import wide


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def sum_and_norm(
    terms: tuple[jax.Array, ...], scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array]:
    """(sum of the terms, its LayerNorm); the norm is of the sum before that is rounded to their type.

    Args:
      terms: [..., C], one or more.
      scale, bias: [C].
    """
    total = functools.reduce(operator.add, map(wide, terms))
    y = _standard(total, eps)[0] * scale + bias
    return total.astype(terms[0].dtype), y.astype(terms[0].dtype)


def _standard(total: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    """(rows at mean 0 and variance 1, what they were multiplied by)."""
    centered = total - total.mean(-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + eps)
    return centered * factor, factor


def _forward(terms: tuple[jax.Array, ...], scale: jax.Array, bias: jax.Array, eps: float) -> tuple[tuple, tuple]:
    total, y = sum_and_norm(terms, scale, bias, eps)
    return (total, y), (total, scale, (None,) * len(terms))


def _backward(eps: float, kept: tuple, gradients: tuple[jax.Array, jax.Array]) -> tuple:
    (total, scale, terms), (of_total, of_y) = kept, map(wide, gradients)
    standard, factor = _standard(wide(total), eps)
    through = of_y * scale
    through -= through.mean(-1, keepdims=True)
    through -= standard * (through * standard).mean(-1, keepdims=True)
    of_term = (of_total + factor * through).astype(total.dtype)
    rows = tuple(range(of_y.ndim - 1))
    return (of_term,) * len(terms), (of_y * standard).sum(rows), of_y.sum(rows)


sum_and_norm.defvjp(_forward, _backward)


class OnePassNorm(LayerNorm):
    """`LayerNorm` by `sum_and_norm`."""

    @jax.named_scope("norm")
    def of_sum(self, *terms: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The sum of the terms, and its norm."""
        parameters: Any = self.scale, self.bias
        scale, bias = (value[...] for value in parameters)
        total, y = sum_and_norm(terms, scale, bias, self.epsilon)
        return total, y.astype(self.dtype)

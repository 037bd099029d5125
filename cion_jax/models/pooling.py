"""Max pooling, and its gradient spelled as XLA's CPU backend computes it fastest."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cion_jax.models.layers import wide


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x_BHWC: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """PyTorch's max pooling: square windows, the input padded with minus infinity on all sides.

    A window's gradient goes to the first of its largest pixels. On a CPU XLA's own gradient takes several times as
    long: it numbers all pixels and pools their numbers. Forward-mode differentiation is not defined.
    """
    return _plain(x_BHWC, window, stride, padding)


def _plain(x_BHWC: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    margins = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(x_BHWC, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, stride, stride, 1), margins)


def _backward(window: int, stride: int, padding: int, x_BHWC: jax.Array, gradient_BhwC: jax.Array) -> tuple[jax.Array]:
    settings: dict[str, Any] = {"window": window, "stride": stride, "padding": padding}
    spelled, own = partial(_by_phases, **settings), partial(_xlas, **settings)
    return (jax.lax.platform_dependent(x_BHWC, gradient_BhwC, cpu=spelled, default=own),)


max_pool.defvjp(lambda x, *settings: (max_pool(x, *settings), x), _backward)


def _xlas(x_BHWC: jax.Array, gradient_BhwC: jax.Array, **settings: Any) -> jax.Array:
    return jax.vjp(partial(_plain, **settings), x_BHWC)[1](gradient_BhwC)[0]


def _by_phases(x_BHWC: jax.Array, gradient_BhwC: jax.Array, *, window: int, stride: int, padding: int) -> jax.Array:
    """Phase by phase of the stride, the sum over the windows that a pixel is in and the largest of."""
    (_, *size, _), (B, *places, C) = x_BHWC.shape, gradient_BhwC.shape
    spare = (window - 1) // stride  # by so many places a window reaches beyond its own
    h, w = (place + spare for place in places)
    ends = [stride * n - whole - padding for n, whole in zip((h, w), size, strict=True)]
    x = _padded(x_BHWC, -jnp.inf, [padding] * 2, ends)
    taps = [divmod(tap, window) for tap in range(window**2)]
    chosen = _padded(_largest(x, taps, stride, places), -1, [spare] * 2, [spare] * 2)
    gradient = _padded(wide(gradient_BhwC), 0, [spare] * 2, [spare] * 2)
    # Or every pixel of every phase would compare its windows' pixels anew.
    chosen, gradient = jax.lax.optimization_barrier((chosen, gradient))

    def phase(row: int, column: int) -> jax.Array:
        total = jnp.zeros((B, h, w, C), gradient.dtype)
        for number, (i, j) in enumerate(taps):
            if (i % stride, j % stride) == (row, column):
                at = (
                    slice(spare - i // stride, spare - i // stride + h),
                    slice(spare - j // stride, spare - j // stride + w),
                )
                total += jnp.where(chosen[:, *at] == number, gradient[:, *at], 0)
        return total

    rows = [jnp.stack([phase(i, j) for j in range(stride)], 3) for i in range(stride)]
    whole = jnp.stack(rows, 2).reshape(B, stride * h, stride * w, C).astype(x.dtype)
    return _padded(whole, 0, [-padding] * 2, [-end for end in ends])


def _largest(x_BHWC: jax.Array, taps: list[tuple[int, int]], stride: int, places: list[int]) -> jax.Array:
    """[B, h, w, C]: the number of the first largest pixel of every window, in the order of `taps`."""

    def pixels(tap: tuple[int, int]) -> jax.Array:
        rows, columns = (slice(t, t + stride * (n - 1) + 1, stride) for t, n in zip(tap, places, strict=True))
        return x_BHWC[:, rows, columns]

    largest = pixels(taps[0])
    chosen = jnp.zeros(largest.shape, jnp.int32)
    for number, tap in enumerate(taps[1:], 1):
        better = pixels(tap) > largest
        largest, chosen = jnp.where(better, pixels(tap), largest), jnp.where(better, number, chosen)
    return chosen


def _padded(x_BHWC: jax.Array, value: float, before: list[int], after: list[int]) -> jax.Array:
    """Height and width padded, or cut where a margin is negative."""
    margins = [(0, 0, 0), *((low, high, 0) for low, high in zip(before, after, strict=True)), (0, 0, 0)]
    return jax.lax.pad(x_BHWC, jnp.asarray(value, x_BHWC.dtype), margins)

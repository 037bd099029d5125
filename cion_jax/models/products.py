"""Products and convolutions spelled as XLA's backends compute them fastest."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def on_rows(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """[..., in] -> [..., out] by a function of a matrix [rows, in]: where the gradient of a product with respect to its
    kernel is a sum over several axes, XLA's CPU backend takes up to four times as long."""
    return function(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def same(x_BHWC: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution that keeps height and width but for its stride."""
    strides, layout = (stride, stride), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x_BHWC, kernel, strides, "SAME", dimension_numbers=layout)


def taps(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same as one matrix product per tap: on maps narrower than the kernel XLA's CPU backend falls back to a loop
    that is 100 times slower than this (1.4 GFLOP/s with 512 channels on 4 x 2 pixels)."""
    size, (_, h, w, _) = len(kernel), x_BHWC.shape
    p = jnp.pad(x_BHWC, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    return sum(p[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(size) for j in range(size))  # type: ignore


def pointwise(x_BHWC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution of edge 1 as a matrix product: as a convolution its gradient with respect to the kernel takes XLA's
    CPU backend 2 to 11 times as long (ResNet-50's, float32)."""
    return on_rows(lambda x: x @ kernel[0, 0], x_BHWC[:, ::stride, ::stride])


def patches(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution whose stride is its kernel's edge, as the one matrix product that it is: a GPU takes 13 ms for the
    gradient of ViT-B's as a convolution with respect to its input (1024 maps of 64x32x64)."""
    (B, H, W, C), (edge, _, _, outputs) = x_BHWC.shape, kernel.shape
    x_BhwN = x_BHWC.reshape(B, H // edge, edge, W // edge, edge, C).transpose(0, 1, 3, 2, 4, 5)
    return x_BhwN.reshape(B, H // edge, W // edge, edge * edge * C) @ kernel.reshape(-1, outputs)

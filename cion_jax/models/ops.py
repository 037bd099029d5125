"""Products and convolutions spelled as XLA's backends compute them fastest."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from cion_jax.common import target

# A strided kernel's gradient: with so few channels copies take longer than products, so larger and fewer ones pay
# (7x7, stride 2, 16 outputs, 32 images of 256x128: 0.14 s of a core, not 0.29 s; at 64 outputs they no longer do).
FEW_INPUTS, FEW_OUTPUTS = 16, 32


def by_cuda(cuda: Callable[..., jax.Array], default: Callable[..., jax.Array], *args: jax.Array) -> jax.Array:
    """`cuda(*args)` where the program is compiled for an NVIDIA GPU, `default(*args)` elsewhere. Both are traced only
    where such a GPU is meant: JAX asks cuDNN for its version while it traces."""
    if not target.is_cuda_ahead() and jax.default_backend() != "gpu":
        return default(*args)
    return jax.lax.platform_dependent(*args, cuda=cuda, default=default)


def wide(x: jax.Array) -> jax.Array:
    """In float32, or wider where it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def on_rows(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """[..., in] -> [..., out] by a function of a matrix [rows, in]: where the gradient of a product with respect to its
    kernel is a sum over several axes, XLA's CPU backend takes up to four times as long."""
    return function(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def plain(x_BHWC: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """Convolution with a square kernel [k, k, in / groups, out], its input padded by as many zeros on all sides."""
    strides, pads, layout = (stride, stride), ((padding, padding),) * 2, ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x_BHWC, kernel, strides, pads, dimension_numbers=layout, feature_group_count=groups
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x_BHWC: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """The same. Its gradient with respect to the kernel is a matrix product on a CPU: as the convolution that it would
    be it takes up to 5 times as long (64 channels on 128 x 64 pixels). Forward-mode differentiation is not defined."""
    return plain(x_BHWC, kernel, stride, padding)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple[jax.Array, tuple]:
    return convolution(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: int, residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    _, of_input = jax.vjp(lambda x: plain(x, kernel, stride, padding), x)
    _, of_kernel = jax.vjp(lambda kernel: plain(x, kernel, stride, padding), kernel)
    product = partial(_kernel_gradient, x, edge=len(kernel), stride=stride, padding=padding)
    return *of_input(gradient), jax.lax.platform_dependent(gradient, cpu=product, default=lambda g: of_kernel(g)[0])


convolution.defvjp(_forward, _backward)


def _kernel_gradient(x_BHWC: jax.Array, gradient_BhwO: jax.Array, *, edge: int, stride: int, padding: int) -> jax.Array:
    """Every pixel's window of the input times its gradient. At stride 1 the windows are one pixel high, and it is the
    gradients that move up and down: 2 k copies instead of k^2. A narrow stem of 3 channels is brought to that."""
    (_, height, _, C), (_, h, w, outputs) = x_BHWC.shape, gradient_BhwO.shape
    if 1 < stride < edge and stride**2 * C <= FEW_INPUTS and outputs <= FEW_OUTPUTS:
        return _kernel_gradient_by_phases(x_BHWC, gradient_BhwO, edge, stride, padding)
    moved = range(edge)
    if stride == 1:
        x = jnp.pad(x_BHWC, ((0, 0), (0, 0), (padding, padding), (0, 0)))
        g = jnp.pad(gradient_BhwO, ((0, 0), (edge - 1 - padding,) * 2, (0, 0), (0, 0)))
        windows_BHwJC = [x[:, :, j : j + w] for j in moved]
        gradients_BHwIO = [g[:, edge - 1 - i : edge - 1 - i + height] for i in moved]
        sums = _summed(windows_BHwJC, gradients_BHwIO).reshape(edge, C, edge, outputs)
        return sums.transpose(2, 0, 1, 3)
    x = jnp.pad(x_BHWC, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = (stride * (size - 1) + 1 for size in (h, w))
    windows_BhwIJC = [x[:, i : i + rows : stride, j : j + columns : stride] for i in moved for j in moved]
    return _summed(windows_BhwIJC, [gradient_BhwO]).reshape(edge, edge, C, outputs)


def _kernel_gradient_by_phases(
    x_BHWC: jax.Array, gradient_BhwO: jax.Array, edge: int, stride: int, padding: int
) -> jax.Array:
    """Strided convolution is one of stride 1 whose channels are the pixels of a patch of `stride` by `stride`."""
    (B, *size, C), (_, *places, outputs) = x_BHWC.shape, gradient_BhwO.shape
    taps = -(-edge // stride)
    h, w = (place + taps - 1 for place in places)
    ends = (stride * n - whole - padding for n, whole in zip((h, w), size, strict=True))
    zero = jnp.zeros((), x_BHWC.dtype)
    x = jax.lax.pad(x_BHWC, zero, ((0, 0, 0), *((padding, end, 0) for end in ends), (0, 0, 0)))
    patches_BhwN = x.reshape(B, h, stride, w, stride, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, h, w, -1)
    kernel = _kernel_gradient(patches_BhwN, gradient_BhwO, edge=taps, stride=1, padding=0)
    whole = kernel.reshape(taps, taps, stride, stride, C, outputs).transpose(0, 2, 1, 3, 4, 5)
    return whole.reshape(taps * stride, taps * stride, C, outputs)[:edge, :edge]


def _summed(a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
    """Two arrays in parts along their last axis, [..., m] and [..., n] -> [m, n]: the sum of their outer products."""
    x, y = (jnp.concatenate(parts, axis=-1) for parts in (a, b))
    kernel = jnp.zeros((x.shape[-1], y.shape[-1]), x.dtype)
    return jax.vjp(lambda kernel: on_rows(lambda x: x @ kernel, x), kernel)[1](y)[0]


def narrow(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1 that keeps the size of a map narrower than its kernel: one matrix product per tap on a
    CPU, where XLA falls back to a loop that is 100 times slower (1.4 GFLOP/s with 512 channels on 4 x 2 pixels)."""
    whole = partial(plain, stride=1, padding=len(kernel) // 2)
    return jax.lax.platform_dependent(x_BHWC, kernel, cpu=_taps, default=whole)


def _taps(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    size, (_, h, w, _) = len(kernel), x_BHWC.shape
    p = jnp.pad(x_BHWC, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    parts = (p[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(size) for j in range(size))
    return functools.reduce(operator.add, parts)


def pointwise(x_BHWC: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution of edge 1: a matrix product on a CPU, where as a convolution its gradient with respect to the kernel
    takes 2 to 11 times as long (ResNet-50's, float32)."""
    whole = partial(plain, stride=stride, padding=0)

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return on_rows(lambda x: x @ kernel[0, 0], x[:, ::stride, ::stride])

    return jax.lax.platform_dependent(x_BHWC, kernel, cpu=product, default=whole)


def patches(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution whose stride is its kernel's edge, as the one matrix product that it is: a GPU takes 13 ms for the
    gradient of ViT-B's as a convolution with respect to its input (1024 maps of 64x32x64). A TPU's convolution takes
    patches as it reads, where for a product they are copied (0.9 of 5.2 GB of ViT-B's stem with its gradient, 48
    images)."""
    whole = partial(plain, stride=len(kernel), padding=0)
    return jax.lax.platform_dependent(x_BHWC, kernel, tpu=whole, default=_patches_as_product)


def _patches_as_product(x_BHWC: jax.Array, kernel: jax.Array) -> jax.Array:
    (B, H, W, C), (edge, _, _, outputs) = x_BHWC.shape, kernel.shape
    x_BhwN = x_BHWC.reshape(B, H // edge, edge, W // edge, edge, C).transpose(0, 1, 3, 2, 4, 5)
    return x_BhwN.reshape(B, H // edge, W // edge, edge * edge * C) @ kernel.reshape(-1, outputs)


def attention(q_BNHD: jax.Array, k_BNHD: jax.Array, v_BNHD: jax.Array, length: int | None = None) -> jax.Array:
    """Dot-product attention to the first `length` tokens, None: to all; on a CPU with the heads before the tokens,
    which takes two thirds of the time."""
    B, N, _, _ = k_BNHD.shape
    library: Callable = jax.nn.dot_product_attention
    by_heads: Callable = _attention_by_heads
    if length is not None and length < N:
        library = partial(library, key_value_seq_lengths=jnp.full(B, length, jnp.int32))
        by_heads = partial(by_heads, length=length)
    return jax.lax.platform_dependent(q_BNHD, k_BNHD, v_BNHD, cpu=by_heads, default=library)


def _attention_by_heads(
    q_BNHD: jax.Array, k_BNHD: jax.Array, v_BNHD: jax.Array, *, length: int | None = None
) -> jax.Array:
    q, k, v = (x.swapaxes(1, 2) for x in (q_BNHD, k_BNHD, v_BNHD))
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.matmul(q * q.shape[-1] ** -0.5, k.swapaxes(2, 3), preferred_element_type=dtype)
    if length is not None:
        logits = jnp.where(jnp.arange(logits.shape[-1]) < length, logits, -jnp.inf)
    return (jax.nn.softmax(logits).astype(v.dtype) @ v).swapaxes(1, 2)


def image_by_image(layer: Callable[[jax.Array], jax.Array], x_BHWC: jax.Array) -> jax.Array:
    """`layer(x_BHWC)`; on a CPU in a loop, into which XLA fuses nothing.

    In evaluation mode all between the products of RepViT and FastViT is element-wise, and XLA's CPU backend fuses such
    a chain, from a stage's first block on, into each layer that reads its end: every block computes all earlier ones
    anew, in four times the time for `repvit_m0_9` and three times for a fused `fastvit_sa24`. In training the batch's
    statistics end the chain.
    """
    loop = partial(jax.lax.map, lambda x_HWC: layer(x_HWC[None])[0])
    return jax.lax.platform_dependent(x_BHWC, cpu=loop, default=layer)

"""The layers that the backbone families share: NHWC, parameters in float32, arithmetic in `dtype`.

Attributes bear the names of the PyTorch state dicts (see `weights.py`). `dtype` is float32 or bfloat16 in
training (float64 works under `jax.enable_x64`); norms and softmaxes are never computed below float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike

from cion_jax.models import ops
from cion_jax.models.activations import gelu

KAIMING = initializers.variance_scaling(2.0, "fan_out", "normal")
TRUNCATED = initializers.truncated_normal(0.02)

NORM_FLOOR = 1e-12
wide = ops.wide


class Conv(nnx.Conv):
    """2-D convolution with PyTorch's symmetric padding; kernel [kh, kw, in, out]."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        *,
        init: Callable = KAIMING,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            inputs,
            outputs,
            (kernel, kernel),
            stride,
            padding=((padding, padding), (padding, padding)),
            use_bias=bias,
            kernel_init=init,
            dtype=dtype,
            rngs=rngs,
        )
        self.stride, self.margin = stride, padding
        self.pointwise = kernel == 1 and padding == 0
        self.keeps_size = stride == 1 and 2 * padding == kernel - 1
        self.takes_patches = stride == kernel > 1 and padding == 0

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:  # type: ignore[override]
        """[B, H, W, in] -> [B, H', W', out]."""
        x, kernel = x_BHWC.astype(self.dtype), self.kernel[...].astype(self.dtype)
        if self.takes_patches and not any(size % len(kernel) for size in x.shape[1:3]):
            y = ops.patches(x, kernel)
        elif self.pointwise:
            y = ops.pointwise(x, kernel, self.stride)
        elif self.keeps_size and min(x.shape[1:3]) < len(kernel):
            y = ops.narrow(x, kernel)
        else:
            y = ops.convolution(x, kernel, self.stride, self.margin)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class Linear(nnx.Linear):
    """Product with a kernel [in, out], truncated normal at the start."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool = True,
        *,
        init: Callable = TRUNCATED,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        super().__init__(inputs, outputs, use_bias=bias, kernel_init=init, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """[..., in] -> [..., out]."""
        return ops.on_rows(super().__call__, x)

    def scaled(self, x: jax.Array, factor: float) -> jax.Array:
        """`factor` times the output, spelled on the weights: XLA on a GPU may compile a (x W + b) to a (x W) + b
        (openxla/xla#46110), but a product of x with a W and the bias a b it cannot."""
        parameters: Any = self.kernel, self.bias
        kernel, bias = ((factor * value[...]).astype(self.dtype) for value in parameters)
        return ops.on_rows(lambda x: x @ kernel + bias, x.astype(self.dtype))


class LayerNorm(nnx.LayerNorm):
    """Over the last axis.

    The variance is E[x^2] - E[x]^2: the gradient of a variance of centered values makes XLA compile four times as
    long on the CPU, and parity does not tell the two apart.
    """

    def __init__(self, features: int, eps: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        super().__init__(features, epsilon=eps, dtype=dtype, rngs=rngs)

    @jax.named_scope("norm")
    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """[..., features] -> [..., features]."""
        return super().__call__(x)


class BatchNorm(nnx.Module):
    """PyTorch's BatchNorm over all axes but the last.

    In training it normalizes by the biased variance of the batch and updates the running `mean` and `var`,
    the latter from the unbiased variance. Under `jax.jit` a sharded batch counts as the one batch it is.
    flax.nnx.BatchNorm keeps the biased variance, hence a class of our own.
    """

    def __init__(
        self,
        features: int,
        eps: float = 1e-5,
        *,
        momentum: float = 0.1,
        scale: float = 1.0,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.scale = nnx.Param(jnp.full(features, scale, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))
        self.eps, self.momentum, self.dtype = eps, momentum, dtype

    @jax.named_scope("norm")
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[..., C] -> [..., C]."""
        return _normalize(x, *self.moments(x, train=train), self.scale[...], self.bias[...], self.eps, self.dtype)

    def moments(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Mean and variance to normalize [..., C] by; in training those of the batch, which the running ones follow."""
        if not train:
            return self.mean[...], self.var[...]
        mean, var = _moments(x, tuple(range(x.ndim - 1)))
        n = x.size // x.shape[-1]
        self._update(mean.reshape(-1), var.reshape(-1) * (n / max(n - 1, 1)))
        return mean, var

    def _update(self, mean: jax.Array, var: jax.Array) -> None:
        for running, new in ((self.mean, mean), (self.var, var)):
            # Not running[...] = ...: flax then asks a traced array for its sharding, which searches the whole program.
            running.set_value((1 - self.momentum) * running[...] + self.momentum * jax.lax.stop_gradient(new))

    def fold(self) -> tuple[np.ndarray, np.ndarray, nnx.Module]:
        """Evaluation mode as (factor [C], offset [C], what remains to be applied), in float64."""
        scale, bias, mean, var = (np.asarray(v[...], np.float64) for v in (self.scale, self.bias, self.mean, self.var))
        factor = scale / np.sqrt(var + self.eps)
        return factor, bias - factor * mean, Folded()


class Folded(nnx.Module):
    """Where a norm was that is part of the convolution before it now."""

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns its input.

        Raises:
          ValueError: in training.
        """
        if train:
            raise ValueError("a fused backbone cannot train: its norms are part of its convolutions")
        return x


class InstanceNorm(nnx.Module):
    """Affine, over the spatial axes of every image and channel, in training and evaluation alike."""

    def __init__(self, features: int, eps: float = 1e-5, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.eps, self.dtype = eps, dtype

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        mean, var = _moments(x_BHWC, (1, 2))
        return _normalize(x_BHWC, mean, var, self.scale[...], self.bias[...], self.eps, self.dtype)


class IBN(nnx.Module):
    """IBN-a: InstanceNorm on the first half of the channels, BatchNorm on the others (arXiv 1807.09441).

    Only moments are taken of halves: written out, those of 64 channels would fill a quarter of a TPU's rows of 128.
    """

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.half = features // 2
        self.IN = InstanceNorm(self.half, dtype=dtype, rngs=rngs)
        self.BN = BatchNorm(features - self.half, dtype=dtype, rngs=rngs)

    @jax.named_scope("norm")
    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        first, second = x_BHWC[..., : self.half], x_BHWC[..., self.half :]
        if isinstance(self.BN, Folded):
            return jnp.concatenate([self.IN(first), second], axis=-1)
        shape = (x_BHWC.shape[0], 1, 1, second.shape[-1])  # the batch may be a symbol
        of_batch = (jnp.broadcast_to(moment, shape) for moment in self.BN.moments(second, train=train))
        mean, var = (jnp.concatenate(pair, -1) for pair in zip(_moments(first, (1, 2)), of_batch, strict=True))
        scale = jnp.concatenate([self.IN.scale[...], self.BN.scale[...]])
        bias = jnp.concatenate([self.IN.bias[...], self.BN.bias[...]])
        return _normalize(x_BHWC, mean, var, scale, bias, self.IN.eps, self.IN.dtype)

    def fold(self) -> tuple[np.ndarray, np.ndarray, nnx.Module]:
        """BatchNorm's half folds; InstanceNorm's remains."""
        factor, offset, self.BN = self.BN.fold()  # type: ignore[assignment]
        first = np.ones(self.half)
        return np.concatenate([first, factor]), np.concatenate([0 * first, offset]), self


class Mlp(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(
        self,
        features: int,
        hidden: int,
        linear: type[Linear] = Linear,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.fc1 = linear(features, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = linear(hidden, features, dtype=dtype, rngs=rngs)

    @jax.named_scope("mlp")
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> [..., C]."""
        return self.fc2(gelu(self.fc1(x)))


class Layers(nnx.Module):
    """Numbered layers, named "0", "1", ... as in PyTorch's Sequential and ModuleList.

    A norm behind a convolution or a linear layer is applied to its output.

    Args:
      layers: the layers in order, or {number: layer} that leaves out numbers without weights (activations).
    """

    def __init__(self, layers: Iterable[nnx.Module] | Mapping[int, nnx.Module]):
        numbered = layers.items() if isinstance(layers, Mapping) else enumerate(layers)
        for number, layer in numbered:
            setattr(self, str(number), layer)

    def __getitem__(self, number: int) -> Any:
        return getattr(self, str(number))

    def __iter__(self) -> Iterator:
        return (self[number] for number in self._numbers)

    @property
    def folds(self) -> list[tuple[str, str]]:
        """Pairs of convolution (or linear layer) and norm, for `fuse`."""
        return [
            (str(a), str(b))
            for a, b in itertools.pairwise(self._numbers)
            if isinstance(self[a], Conv | Linear) and isinstance(self[b], BatchNorm | IBN)
        ]

    @property
    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in vars(self) if name.isdigit())


def l2_normalize(x: jax.Array) -> jax.Array:
    """Rows at length 1 (a length below 1e-12 counts as that), computed in float32 or wider."""
    x = wide(x)
    # The root of the floored square: its gradient at a row of zeros is zero, not NaN.
    return x / jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), NORM_FLOOR**2))


def drop_path(x: jax.Array, rate: float, *, train: bool, key: jax.Array | None) -> jax.Array:
    """Stochastic depth: in training drops the residual branch [B, ...] of a share `rate` of the images.

    The other images' branches are divided by 1 - rate.

    Raises:
      ValueError: training at a rate above 0 without a key.
    """
    if not train or rate == 0:
        return x
    if key is None:
        raise ValueError(f"stochastic depth at rate {rate} draws random numbers: call the model with key=...")
    keep = jax.random.bernoulli(key, 1 - rate, (len(x),) + (1,) * (x.ndim - 1))
    # Not by a constant: behind a product with a bias XLA on a GPU might scale the product alone (as in
    # `Linear.scaled`).
    factor = jnp.where(keep, 1 / (1 - rate), 1).astype(x.dtype)
    return jnp.where(keep, x * factor, 0)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates of `depth` blocks, rising linearly from 0 to `rate`."""
    return [float(r) for r in np.linspace(0, rate, depth)]


def relative_position_index(window: int) -> np.ndarray:
    """[window^2, window^2] int64: for every pair of positions its row in [(2 window - 1)^2, heads]."""
    y_N, x_N = (axis.ravel() for axis in np.mgrid[:window, :window])
    dy_NN, dx_NN = (axis[:, None] - axis[None] + window - 1 for axis in (y_N, x_N))
    return dy_NN * (2 * window - 1) + dx_NN


def run(
    blocks: Iterable, x: jax.Array, *, train: bool, key: jax.Array | None, remat: bool, part: Hashable = None
) -> jax.Array:
    """Applies `block(x, train=, key=)` one after another, each with a key of its own.

    Args:
      part: given to every block where it is not None.
      remat: recompute every block's activations in the backward pass instead of keeping them.
    """
    for number, block in enumerate(blocks):
        own = None if key is None else jax.random.fold_in(key, number)
        call = nnx.remat(_call, static_argnums=(2, 4)) if remat else _call
        x = call(block, x, train, own, part)
    return x


def resize_positions(x_BHWC: jax.Array, height: int, width: int, *, always: bool = False) -> jax.Array:
    """Resizes position embeddings [1, h, w, C] to [1, height, width, C] as the reference does.

    Bicubic (a = -0.75), half-pixel centers, no antialiasing; the sampling coordinates are divided by the
    scale factors (height + 0.1) / h and (width + 0.1) / w. Embeddings of the right size stay as they are, unless
    they are `always` resampled.
    """
    _, h, w, _ = x_BHWC.shape
    if (h, w) == (height, width) and not always:
        return x_BHWC
    rows, columns = (jnp.asarray(_bicubic(*size), x_BHWC.dtype) for size in ((h, height), (w, width)))
    return jnp.einsum("Hh,Ww,bhwc->bHWc", rows, columns, x_BHWC, precision="highest")


def _bicubic(size: int, new_size: int) -> np.ndarray:
    """[new_size, size] weights; samples beyond the border repeat it."""
    position = (np.arange(new_size) + 0.5) * size / (new_size + 0.1) - 0.5
    first = np.floor(position).astype(int)
    matrix = np.zeros((new_size, size))
    for tap in range(-1, 3):
        at = np.clip(first + tap, 0, size - 1)
        np.add.at(matrix, (np.arange(new_size), at), _cubic(np.abs(position - first - tap)))
    return matrix


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _call(block: Any, x: jax.Array, train: bool, key: jax.Array | None, part: Hashable) -> jax.Array:
    return block(x, train=train, key=key, **({} if part is None else {"part": part}))


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    x = wide(x)
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.square(x - mean).mean(axes, keepdims=True)


def _normalize(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, eps: float, dtype: DTypeLike
) -> jax.Array:
    return ((x - mean) * (jax.lax.rsqrt(var + eps) * scale) + bias).astype(dtype)

"""EdgeNeXt (arXiv 2206.10589): convolution encoders, and per stage one encoder with attention between channels."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax.models.head import l2_normalise
from cion_jax.models.layers import (
    TRUNCATED,
    Conv,
    LayerNorm,
    Layers,
    Linear,
    drop_path,
    drop_path_rates,
    gelu,
    run,
)

DEPTHS = (3, 3, 9, 3)
KERNELS = (3, 5, 7, 9)  # of the depthwise convolutions, per stage
SCALES = (None, 2, 3, 4)  # groups of channels in the last encoder of a stage; None: that encoder is a convolution too
FREQUENCIES = 32  # of the positional code, per axis
EPS = 1e-6
LAYER_SCALE = 1e-6


class ConvEncoder(nnx.Module):
    """Depthwise convolution, LayerNorm and a pointwise MLP beside a shortcut."""

    def __init__(self, features: int, kernel: int, rate: float, *, dtype, rngs: nnx.Rngs):
        kw = {"dtype": dtype, "rngs": rngs}
        self.gamma = nnx.Param(jnp.full(features, LAYER_SCALE, jnp.float32))
        self.dwconv = _depthwise(features, kernel, **kw)
        self.norm = LayerNorm(features, EPS, **kw)
        self.pwconv1 = Linear(features, 4 * features, **kw)
        self.pwconv2 = Linear(4 * features, features, **kw)
        self.rate = rate

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        y = self.pwconv2(gelu(self.pwconv1(self.norm(self.dwconv(x_BHWC)))))
        return x_BHWC + drop_path(_scaled(self.gamma, y), self.rate, train=train, key=key)


class SDTAEncoder(nnx.Module):
    """Split depthwise transpose attention: depthwise convolutions in cascade, channel attention, a pointwise MLP.

    Args:
      scales: groups of channels; each but the last is convolved, after adding the result of the one before.
      positions: add a positional code before the attention.
    """

    def __init__(self, features: int, heads: int, scales: int, positions: bool, rate: float, *, dtype, rngs: nnx.Rngs):
        kw = {"dtype": dtype, "rngs": rngs}
        width = math.ceil(features / scales)
        self.cuts = tuple(range(width, features, width))
        self.gamma_xca = nnx.Param(jnp.full(features, LAYER_SCALE, jnp.float32))
        self.gamma = nnx.Param(jnp.full(features, LAYER_SCALE, jnp.float32))
        self.convs = Layers(_depthwise(width, 3, **kw) for _ in range(scales - 1))
        self.pos_embd = PositionalCode(features, **kw) if positions else None
        self.norm_xca = LayerNorm(features, EPS, **kw)
        self.xca = ChannelAttention(features, heads, **kw)
        self.norm = LayerNorm(features, EPS, **kw)
        self.pwconv1 = Linear(features, 4 * features, **kw)
        self.pwconv2 = Linear(4 * features, features, **kw)
        self.rate = rate

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        B, H, W, C = x_BHWC.shape
        keys = (None, None) if key is None else jax.random.split(key)
        y = self._cascade(x_BHWC)
        if self.pos_embd is not None:
            y += self.pos_embd(H, W)
        attended = self.xca(self.norm_xca(y).reshape(B, H * W, C)).reshape(B, H, W, C)
        y += drop_path(_scaled(self.gamma_xca, attended), self.rate, train=train, key=keys[0])
        y = self.pwconv2(gelu(self.pwconv1(self.norm(y))))
        return x_BHWC + drop_path(_scaled(self.gamma, y), self.rate, train=train, key=keys[1])

    def _cascade(self, x_BHWC: jax.Array) -> jax.Array:
        *groups, last = jnp.split(x_BHWC, self.cuts, axis=-1)
        done: list[jax.Array] = []
        for conv, group in zip(self.convs, groups, strict=True):
            done.append(conv(group + done[-1] if done else group))
        return jnp.concatenate([*done, last], axis=-1)


class ChannelAttention(nnx.Module):
    """Cross-covariance attention (arXiv 2106.09681): channels attend to channels, at a learnt temperature per head."""

    def __init__(self, features: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.temperature = nnx.Param(jnp.ones((heads, 1, 1), jnp.float32))
        self.qkv = Linear(features, 3 * features, dtype=dtype, rngs=rngs)
        self.proj = Linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x_BNC: jax.Array) -> jax.Array:
        """[B, N, C] -> [B, N, C]; cost linear in N."""
        B, N, C = x_BNC.shape
        q_BHDN, k_BHDN, v_BHDN = self.qkv(x_BNC).reshape(B, N, 3, self.heads, -1).transpose(2, 0, 3, 4, 1)
        logits_BHDD = l2_normalise(q_BHDN) @ l2_normalise(k_BHDN).mT * self.temperature[...]
        weights_BHDD = jax.nn.softmax(logits_BHDD).astype(x_BNC.dtype)
        return self.proj((weights_BHDD @ v_BHDN).transpose(0, 3, 1, 2).reshape(B, N, C))


class PositionalCode(nnx.Module):
    """Sines and cosines of both coordinates, projected to the width of the features."""

    def __init__(self, features: int, *, dtype, rngs: nnx.Rngs):
        self.token_projection = Conv(2 * FREQUENCIES, features, 1, init=TRUNCATED, dtype=dtype, rngs=rngs)

    def __call__(self, height: int, width: int) -> jax.Array:
        """[1, height, width, features]."""
        rows = np.broadcast_to(_waves(height)[:, None], (height, width, FREQUENCIES))
        columns = np.broadcast_to(_waves(width), (height, width, FREQUENCIES))
        return self.token_projection(jnp.asarray(np.concatenate([rows, columns], axis=-1)[None], jnp.float32))


class EdgeNeXt(nnx.Module):
    """Four stages, each after a strided convolution; global average; LayerNorm.

    Args:
      widths: features per stage.
      heads: of the channel attention.
      drop_path: highest rate of stochastic depth.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        heads: int,
        *,
        drop_path: float = 0.0,
        dtype=jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat = widths[-1], remat
        self.downsample_layers = Layers(_downsample(*pair, **kw) for pair in zip((3, *widths), widths, strict=False))
        rates = iter(drop_path_rates(drop_path, sum(DEPTHS)))
        self.stages = Layers(
            Layers(_encoder(stage, number, widths[stage], heads, next(rates), **kw) for number in range(depth))
            for stage, depth in enumerate(DEPTHS)
        )
        self.norm = LayerNorm(widths[-1], EPS, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalised images, H and W multiples of 32 -> [B, features]."""
        x = x_BHWC
        keys = [None] * len(DEPTHS) if key is None else jax.random.split(key, len(DEPTHS))
        for downsample, stage, own in zip(self.downsample_layers, self.stages, keys, strict=True):
            for layer in downsample:
                x = layer(x)
            x = run(stage, x, train=train, key=own, remat=self.remat)
        return self.norm(x.mean((1, 2)))


def _downsample(inputs: int, outputs: int, **kw) -> Layers:
    """The stem (by 4, norm last) for images, by 2 (norm first) between stages."""
    if inputs == 3:
        return Layers([Conv(inputs, outputs, 4, 4, init=TRUNCATED, **kw), LayerNorm(outputs, EPS, **kw)])
    return Layers([LayerNorm(inputs, EPS, **kw), Conv(inputs, outputs, 2, 2, init=TRUNCATED, **kw)])


def _encoder(stage: int, number: int, features: int, heads: int, rate: float, **kw) -> nnx.Module:
    scales = SCALES[stage]
    if scales is None or number < DEPTHS[stage] - 1:
        return ConvEncoder(features, KERNELS[stage], rate, **kw)
    return SDTAEncoder(features, heads, scales, stage == 1, rate, **kw)


def _depthwise(features: int, kernel: int, **kw) -> Conv:
    return Conv(features, features, kernel, padding=kernel // 2, groups=features, init=TRUNCATED, **kw)


def _scaled(gamma: nnx.Param, x: jax.Array) -> jax.Array:
    return gamma[...].astype(x.dtype) * x


def _waves(size: int) -> np.ndarray:
    """[size, FREQUENCIES]: sine and cosine in turn, wavelengths rising from the size to 10000 times that."""
    angle = 2 * np.pi * np.arange(1, size + 1) / (size + 1e-6)
    phases = angle[:, None] / 10000 ** (np.arange(0, FREQUENCIES, 2) / FREQUENCIES)
    return np.stack([np.sin(phases), np.cos(phases)], axis=-1).reshape(size, FREQUENCIES)


MODELS = {
    "edgenext_x_small": partial(EdgeNeXt, (32, 64, 100, 192), 4),
    "edgenext_small": partial(EdgeNeXt, (48, 96, 160, 304), 8),
    "edgenext_base": partial(EdgeNeXt, (80, 160, 288, 584), 8),
}

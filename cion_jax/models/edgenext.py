"""EdgeNeXt (arXiv 2206.10589): ConvNeXt whose kernels grow by stage, with channel attention at the ends of stages."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models.activations import gelu
from cion_jax.models.convnext import EPS, LAYER_SCALE, Block, ConvNeXt
from cion_jax.models.depthwise import Depthwise
from cion_jax.models.layers import TRUNCATED, Conv, LayerNorm, Layers, Linear, drop_path, l2_normalize
from cion_jax.models.registry import BACKBONES

DEPTHS = (3, 3, 9, 3)
KERNELS = (3, 5, 7, 9)  # of the convolutional blocks, per stage
SCALES = (None, 2, 3, 4)  # groups of channels in a stage's last block; None: that block is convolutional too
POSITIONS = 1  # the stage whose last block gets a positional code
FREQUENCIES = 32  # of the positional code, per axis


class SDTAEncoder(nnx.Module):
    """Split depthwise transpose attention: depthwise convolutions in cascade, channel attention, a pointwise MLP.

    Args:
      scales: groups of channels; each but the last is convolved, after adding the result of the one before.
      positions: add a positional code before the attention.
    """

    def __init__(
        self, features: int, heads: int, scales: int, positions: bool, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        width = math.ceil(features / scales)
        self.cuts = tuple(range(width, features, width))
        self.gamma_xca = nnx.Param(jnp.full(features, LAYER_SCALE, jnp.float32))
        self.gamma = nnx.Param(jnp.full(features, LAYER_SCALE, jnp.float32))
        self.convs = Layers(Depthwise(width, 3, init=TRUNCATED, **kw) for _ in range(scales - 1))
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

    def __init__(self, features: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.heads = heads
        self.temperature = nnx.Param(jnp.ones((heads, 1, 1), jnp.float32))
        self.qkv = Linear(features, 3 * features, dtype=dtype, rngs=rngs)
        self.proj = Linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x_BNC: jax.Array) -> jax.Array:
        """[B, N, C] -> [B, N, C]; cost linear in N."""
        B, N, C = x_BNC.shape
        q_BHDN, k_BHDN, v_BHDN = self.qkv(x_BNC).reshape(B, N, 3, self.heads, -1).transpose(2, 0, 3, 4, 1)
        logits_BHDD = l2_normalize(q_BHDN) @ l2_normalize(k_BHDN).mT * self.temperature[...]
        weights_BHDD = jax.nn.softmax(logits_BHDD).astype(v_BHDN.dtype)
        return self.proj((weights_BHDD @ v_BHDN).transpose(0, 3, 1, 2).reshape(B, N, C))


class PositionalCode(nnx.Module):
    """Sines and cosines of both coordinates, projected to the width of the features."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.token_projection = Conv(2 * FREQUENCIES, features, 1, init=TRUNCATED, dtype=dtype, rngs=rngs)

    def __call__(self, height: int, width: int) -> jax.Array:
        """[1, height, width, features]."""
        rows = np.broadcast_to(_waves(height)[:, None], (height, width, FREQUENCIES))
        columns = np.broadcast_to(_waves(width), (height, width, FREQUENCIES))
        return self.token_projection(jnp.asarray(np.concatenate([rows, columns], axis=-1)[None], jnp.float32))


def _waves(size: int) -> np.ndarray:
    """[size, FREQUENCIES]: sine and cosine in turn, wavelengths rising from the size to nearly 10000 times that."""
    angle = 2 * np.pi * np.arange(1, size + 1) / (size + 1e-6)
    phases = angle[:, None] / 10000 ** (np.arange(0, FREQUENCIES, 2) / FREQUENCIES)
    return np.stack([np.sin(phases), np.cos(phases)], axis=-1).reshape(size, FREQUENCIES)


def _scaled(gamma: nnx.Param, x: jax.Array) -> jax.Array:
    return gamma[...].astype(x.dtype) * x


def _block(features: int, rate: float, *, heads: int, stage: int, last: bool, **kw: Any) -> nnx.Module:
    scales = SCALES[stage]
    if last and scales is not None:
        return SDTAEncoder(features, heads, scales, stage == POSITIONS, rate, **kw)
    return Block(features, rate, KERNELS[stage], **kw)


BACKBONES.register_all(
    {
        "edgenext_x_small": partial(ConvNeXt, DEPTHS, (32, 64, 100, 192), partial(_block, heads=4)),
        "edgenext_small": partial(ConvNeXt, DEPTHS, (48, 96, 160, 304), partial(_block, heads=8)),
        "edgenext_base": partial(ConvNeXt, DEPTHS, (80, 160, 288, 584), partial(_block, heads=8)),
    }
)

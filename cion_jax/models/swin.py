"""Swin Transformer (arXiv 2103.14030): attention within windows of 8x8 that shift from block to block."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models.layers import (
    TRUNCATED,
    Conv,
    LayerNorm,
    Layers,
    Linear,
    Mlp,
    drop_path,
    drop_path_rates,
    relative_position_index,
    run,
    wide,
)
from cion_jax.models.registry import BACKBONES

WINDOW = 8
SHIFT = WINDOW // 2
HEAD_WIDTH = 32
EPS = 1e-5
MASKED = -100.0  # added to the logits of pairs that a shift has put into one window


class PatchEmbed(nnx.Module):
    """Patches of 4x4 pixels, projected and normalized."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.proj = Conv(3, features, 4, 4, init=TRUNCATED, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(features, EPS, dtype=dtype, rngs=rngs)

    @jax.named_scope("stem")
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, H / 4, W / 4, features]."""
        return self.norm(self.proj(x_BHWC))


class WindowAttention(nnx.Module):
    """Multi-head attention among the pixels of every window, with a learnt bias per head and relative position."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.heads = features // HEAD_WIDTH
        table = ((2 * WINDOW - 1) ** 2, self.heads)
        self.relative_position_bias_table = nnx.Param(TRUNCATED(rngs.params(), table, jnp.float32))
        self.qkv = Linear(features, 3 * features, **kw)
        self.proj = Linear(features, features, **kw)

    @jax.named_scope("attention")
    def __call__(self, x_BMNC: jax.Array, mask_MNN: np.ndarray | None) -> jax.Array:
        """[B, M, N, C] -> [B, M, N, C], M windows of N pixels; `mask_MNN` is added to the logits."""
        *shape, C = x_BMNC.shape
        qkv = self.qkv(x_BMNC).reshape(*shape, 3, self.heads, HEAD_WIDTH)
        q_BMNHD, k_BMNHD, v_BMNHD = jnp.moveaxis(qkv, 3, 0)
        logits = jnp.einsum("bmqhd,bmkhd->bmhqk", q_BMNHD * HEAD_WIDTH**-0.5, k_BMNHD)
        logits = wide(logits) + self._bias()
        if mask_MNN is not None:
            logits += mask_MNN[:, None]
        weights = jax.nn.softmax(logits).astype(x_BMNC.dtype)
        return self.proj(jnp.einsum("bmhqk,bmkhd->bmqhd", weights, v_BMNHD).reshape(*shape, C))

    def _bias(self) -> jax.Array:
        return self.relative_position_bias_table[...][relative_position_index(WINDOW)].transpose(2, 0, 1)


class Block(nnx.Module):
    """Window attention and MLP, each after a LayerNorm and beside a shortcut.

    Args:
      shift: displacement of the windows' grid down and to the right, in pixels.
    """

    def __init__(self, features: int, shift: int, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(features, EPS, **kw)
        self.attn = WindowAttention(features, **kw)
        self.norm2 = LayerNorm(features, EPS, **kw)
        self.mlp = Mlp(features, 4 * features, **kw)
        self.shift, self.rate = shift, rate

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        keys = (None, None) if key is None else jax.random.split(key)
        x_BHWC += drop_path(self._attend(self.norm1(x_BHWC)), self.rate, train=train, key=keys[0])
        return x_BHWC + drop_path(self.mlp(self.norm2(x_BHWC)), self.rate, train=train, key=keys[1])

    def _attend(self, x_BHWC: jax.Array) -> jax.Array:
        """Zeros fill the windows at the lower and right border; they are attended to like any other pixel."""
        _, H, W, _ = x_BHWC.shape
        x = jnp.pad(x_BHWC, ((0, 0), (0, -H % WINDOW), (0, -W % WINDOW), (0, 0)))
        h, w = x.shape[1:3]
        mask_MNN = None
        if self.shift:
            x, mask_MNN = jnp.roll(x, (-self.shift, -self.shift), (1, 2)), _shift_mask(h, w)
        x = _image(self.attn(_windows(x), mask_MNN), h, w)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :H, :W]


class PatchMerging(nnx.Module):
    """Halves the resolution: four neighbors side by side, LayerNorm, projection to twice the features."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * features, EPS, dtype=dtype, rngs=rngs)
        self.reduction = Linear(4 * features, 2 * features, bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / 2, W / 2, 2 C]; the neighbors are ordered column by column."""
        B, H, W, C = x_BHWC.shape
        x = x_BHWC.reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(x.reshape(B, H // 2, W // 2, 4 * C)))


class Stage(nnx.Module):
    """Blocks, every second one with shifted windows, and the step to the next stage's resolution."""

    def __init__(self, features: int, rates: list[float], last: bool, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.blocks = Layers(Block(features, SHIFT * (i % 2), rate, **kw) for i, rate in enumerate(rates))
        self.downsample = None if last else PatchMerging(features, **kw)


class Swin(nnx.Module):
    """Patches, four stages, LayerNorm, global average.

    Args:
      depths: blocks per stage.
      width: features of the first stage; they double from stage to stage.
      drop_path: highest rate of stochastic depth.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        width: int,
        *,
        drop_path: float = 0.1,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat = width * 2 ** (len(depths) - 1), remat
        self.patch_embed = PatchEmbed(width, **kw)
        rates, ends = drop_path_rates(drop_path, sum(depths)), np.cumsum(depths)
        self.layers = Layers(
            Stage(width * 2**i, rates[end - depth : end], i == len(depths) - 1, **kw)
            for i, (depth, end) in enumerate(zip(depths, ends, strict=True))
        )
        self.norm3 = LayerNorm(self.features, EPS, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 32 -> [B, features]."""
        x = self.patch_embed(x_BHWC)
        for number, stage in enumerate(self.layers):
            own = None if key is None else jax.random.fold_in(key, number)
            x = run(stage.blocks, x, train=train, key=own, remat=self.remat)
            if stage.downsample is not None:
                x = stage.downsample(x)
        return self.norm3(x).mean((1, 2))


def _windows(x_BHWC: Any) -> Any:
    """[B, H, W, C] -> [B, windows, pixels, C], both row by row."""
    B, H, W, C = x_BHWC.shape
    x = x_BHWC.reshape(B, H // WINDOW, WINDOW, W // WINDOW, WINDOW, C)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, -1, WINDOW**2, C)


def _image(x_BMNC: jax.Array, height: int, width: int) -> jax.Array:
    """The inverse of `_windows`."""
    B, _, _, C = x_BMNC.shape
    x = x_BMNC.reshape(B, height // WINDOW, width // WINDOW, WINDOW, WINDOW, C)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, height, width, C)


def _shift_mask(height: int, width: int) -> np.ndarray:
    """[M, N, N]: MASKED between pixels that were not neighbors before the roll brought them into one window."""
    row, column = (np.searchsorted([size - WINDOW, size - SHIFT], range(size), "right") for size in (height, width))
    region_HW = 3 * row[:, None] + column
    region_MN = _windows(region_HW[None, :, :, None])[0, ..., 0]
    return np.where(region_MN[:, :, None] == region_MN[:, None], 0, MASKED).astype(np.float32)


BACKBONES.register_all(
    {
        "swin_tiny": partial(Swin, (2, 2, 6, 2), 96),
        "swin_small": partial(Swin, (2, 2, 18, 2), 96),
        "swin_base": partial(Swin, (2, 2, 18, 2), 128),
    }
)

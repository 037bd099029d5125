"""VOLO (arXiv 2106.13112): outlook attention at 1/8 of the resolution, self-attention at 1/16, class attention."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models.attention import Attention
from cion_jax.models.layers import (
    TRUNCATED,
    BatchNorm,
    Conv,
    LayerNorm,
    Layers,
    Linear,
    Mlp,
    drop_path,
    drop_path_rates,
    resize_positions,
    run,
    wide,
)
from cion_jax.models.registry import BACKBONES
from cion_jax.models.vit import PatchEmbed

GRID = (16, 8)  # patches of a 256x128 image
HEAD_WIDTH = 32
KERNEL = 3  # edge of the neighborhood of outlook attention
EPS = 1e-5


class OutlookAttention(nnx.Module):
    """Pixels mixed within 3x3 neighborhoods, two pixels apart, by weights that the neighborhood's center predicts."""

    def __init__(self, features: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.heads = heads
        self.v = Linear(features, features, bias=False, **kw)
        self.attn = Linear(features, heads * KERNEL**4, **kw)
        self.proj = Linear(features, features, **kw)

    @jax.named_scope("attention")
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C], H and W even."""
        B, H, W, C = x_BHWC.shape
        v_BHWC = self.v(x_BHWC)
        v_BhwKND = _neighborhoods(v_BHWC).reshape(B, H // 2, W // 2, KERNEL**2, self.heads, -1)
        mixed = jnp.einsum("bhwnqk,bhwknd->bhwqnd", self._weights(x_BHWC), v_BhwKND)
        overlap = jax.linear_transpose(_neighborhoods, v_BHWC)
        (x_BHWC,) = overlap(mixed.reshape(B, H // 2, W // 2, KERNEL**2, C))
        return self.proj(x_BHWC)

    def _weights(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H / 2, W / 2, heads, 9, 9]; the last axis sums to 1."""
        B, H, W, C = x_BHWC.shape
        pooled = x_BHWC.reshape(B, H // 2, 2, W // 2, 2, C).mean((2, 4))
        logits = self.attn.scaled(pooled, HEAD_WIDTH**-0.5)
        logits = logits.reshape(B, H // 2, W // 2, self.heads, KERNEL**2, KERNEL**2)
        return jax.nn.softmax(wide(logits)).astype(x_BHWC.dtype)


class ClassAttention(nnx.Module):
    """Attention of the class token to itself and all patches."""

    def __init__(self, features: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.heads = heads
        self.kv = Linear(features, 2 * features, bias=False, **kw)
        self.q = Linear(features, features, bias=False, **kw)
        self.proj = Linear(features, features, **kw)

    @jax.named_scope("attention")
    def __call__(self, x_BNC: jax.Array) -> jax.Array:
        """[B, N, C], the class token first -> [B, 1, C]."""
        B, N, C = x_BNC.shape
        q_B1HD = self.q(x_BNC[:, :1]).reshape(B, 1, self.heads, -1)
        k_BNHD, v_BNHD = jnp.moveaxis(self.kv(x_BNC).reshape(B, N, 2, self.heads, -1), 2, 0)
        return self.proj(jax.nn.dot_product_attention(q_B1HD, k_BNHD, v_BNHD).reshape(B, 1, C))


class Block(nnx.Module):
    """Attention (outlook attention over pixels or self-attention over all patches) and MLP, each beside a shortcut."""

    def __init__(self, attention: nnx.Module, features: int, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(features, EPS, **kw)
        self.attn = attention
        self.norm2 = LayerNorm(features, EPS, **kw)
        self.mlp = Mlp(features, 3 * features, **kw)
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """[B, ..., C] -> [B, ..., C]."""
        keys = (None, None) if key is None else jax.random.split(key)
        x += drop_path(self.attn(self.norm1(x)), self.rate, train=train, key=keys[0])
        return x + drop_path(self.mlp(self.norm2(x)), self.rate, train=train, key=keys[1])


class ClassBlock(nnx.Module):
    """Class attention and MLP, which change the class token alone."""

    def __init__(self, features: int, heads: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(features, EPS, **kw)
        self.attn = ClassAttention(features, heads, **kw)
        self.norm2 = LayerNorm(features, EPS, **kw)
        self.mlp = Mlp(features, 3 * features, **kw)

    def __call__(self, cls_B1C: jax.Array, x_BNC: jax.Array) -> jax.Array:
        """[B, 1, C], [B, N, C] -> [B, 1, C]."""
        cls_B1C += self.attn(self.norm1(jnp.concatenate([cls_B1C, x_BNC], axis=1)))
        return cls_B1C + self.mlp(self.norm2(cls_B1C))


class Downsample(nnx.Module):
    """Patches of 2x2, projected."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.proj = Conv(inputs, outputs, 2, 2, init=TRUNCATED, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / 2, W / 2, outputs]."""
        return self.proj(x_BHWC)


class VOLO(nnx.Module):
    """Stem, outlookers, position embeddings, transformers, class attention, LayerNorm; the class token comes out.

    Args:
      depths: number of outlookers, then of transformers in three groups.
      features: of the transformers; the outlookers have half of them.
      drop_path: highest rate of stochastic depth.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        features: int,
        *,
        drop_path: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat = features, remat
        half, heads = features // 2, features // HEAD_WIDTH
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        self.patch_embed = PatchEmbed(half, BatchNorm, 4, **kw)
        self.pos_embed = nnx.Param(TRUNCATED(rngs.params(), (1, *GRID, features), jnp.float32))
        self.cls_token = nnx.Param(TRUNCATED(rngs.params(), (1, 1, features), jnp.float32))
        outlookers, *transformers = depths
        self.network = Layers(
            [
                Layers(
                    Block(OutlookAttention(half, heads // 2, **kw), half, next(rates), **kw) for _ in range(outlookers)
                ),
                Downsample(half, features, **kw),
                *(
                    Layers(
                        Block(Attention(features, heads, qkv_bias=False, **kw), features, next(rates), **kw)
                        for _ in range(depth)
                    )
                    for depth in transformers
                ),
            ]
        )
        self.post_network = Layers(ClassBlock(features, heads, **kw) for _ in range(2))
        self.norm = LayerNorm(features, EPS, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 16 -> [B, features]."""
        outlookers, downsample, *transformers = self.network
        keys = [None] * 2 if key is None else jax.random.split(key)
        x = self.patch_embed(x_BHWC, train=train)
        x = downsample(run(outlookers, x, train=train, key=keys[0], remat=self.remat))
        B, h, w, C = x.shape
        x += resize_positions(self.pos_embed[...], h, w).astype(x.dtype)
        blocks = [block for group in transformers for block in group]
        x_BNC = run(blocks, x.reshape(B, h * w, C), train=train, key=keys[1], remat=self.remat)
        cls_B1C = jnp.broadcast_to(self.cls_token[...].astype(x.dtype), (B, 1, C))
        for block in self.post_network:
            cls_B1C = block(cls_B1C, x_BNC)
        return self.norm(cls_B1C[:, 0])


def _neighborhoods(x_BHWC: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, H / 2, W / 2, 9, C]: the 3x3 pixels around every second one, zeros beyond the border."""
    B, H, W, C = x_BHWC.shape
    h, w = H // 2, W // 2
    padded = jnp.pad(x_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(B, h + 1, 2, w + 1, 2, C)
    taps = [(divmod(i, 2), divmod(j, 2)) for i in range(KERNEL) for j in range(KERNEL)]
    return jnp.stack([padded[:, y : y + h, a, x : x + w, b] for (y, a), (x, b) in taps], axis=3)


BACKBONES.register_all(
    {
        "volo_d1": partial(VOLO, (4, 4, 8, 2), 384),
        "volo_d2": partial(VOLO, (6, 4, 10, 4), 512),
        "volo_d3": partial(VOLO, (8, 8, 16, 4), 512),
    }
)

"""ViT (arXiv 2010.11929), plain and with the convolutional IBN stem of TransReID-SSL (arXiv 2111.12084)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

from cion_jax.common.typed_config import ConfigError
from cion_jax.models import ops
from cion_jax.models.attention import Attention, Part
from cion_jax.models.fp8 import Fp8Linear
from cion_jax.models.layers import (
    IBN,
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
)
from cion_jax.models.options import TOKENS
from cion_jax.models.registry import BACKBONES

GRID = (16, 8)  # patches of a 256x128 image
EPS = 1e-6


class PatchEmbed(nnx.Module):
    """Three convolutions at half resolution, then patches of theirs.

    Args:
      norm: of the first two convolutions.
      patch: edge of a patch, in pixels of the half resolution.
    """

    def __init__(
        self,
        features: int,
        norm: type[IBN] | type[BatchNorm] = IBN,
        patch: int = 8,
        width: int = 64,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv = Layers(
            {
                0: Conv(3, width, 7, 2, padding=3, bias=False, **kw),
                1: norm(width, **kw),
                3: Conv(width, width, 3, padding=1, bias=False, **kw),
                4: norm(width, **kw),
                6: Conv(width, width, 3, padding=1, bias=False, **kw),
                7: BatchNorm(width, **kw),
            }
        )
        self.proj = Conv(width, features, patch, patch, **kw)

    @jax.named_scope("stem")
    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, 3] -> [B, H / 2 / patch, W / 2 / patch, features]."""
        for conv in (0, 3, 6):
            x_BHWC = jax.nn.relu(self.conv[conv + 1](self.conv[conv](x_BHWC), train=train))
        return self.proj(x_BHWC)


class PlainPatchEmbed(nnx.Module):
    """Patches of the image itself, as in the first ViT, DeiT, DINO and MAE."""

    def __init__(self, features: int, patch: int = 16, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.proj = Conv(3, features, patch, patch, dtype=dtype, rngs=rngs)

    @jax.named_scope("stem")
    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, 3] -> [B, H / patch, W / patch, features]."""
        return self.proj(x_BHWC)


def linear_of(options: Sequence[str]) -> type[Linear]:
    """What a block's products are, as names of `models.options` say."""
    return Fp8Linear if "fp8_products" in options else Linear


class Block(nnx.Module):
    """Attention and MLP, each after a LayerNorm and beside a shortcut."""

    def __init__(
        self,
        features: int,
        heads: int,
        rate: float,
        linear: type[Linear] = Linear,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(features, EPS, **kw)
        self.attn = Attention(features, heads, linear=linear, **kw)
        self.norm2 = LayerNorm(features, EPS, **kw)
        self.mlp = Mlp(features, 4 * features, linear, **kw)
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None, part: Part | None = None) -> jax.Array:
        """[B, N, C] -> [B, N, C]; or the rows of `part`, [R, C], to the same."""
        keys = (None, None) if key is None else jax.random.split(key)
        x = x + self._dropped(self.attn(self.norm1(x), part), part, train, keys[0])
        return x + self._dropped(self.mlp(self.norm2(x)), part, train, keys[1])

    def _dropped(self, x: jax.Array, part: Part | None, train: bool, key: jax.Array | None) -> jax.Array:
        """Stochastic depth of whole images."""
        if part is None or not train or self.rate == 0:
            return drop_path(x, self.rate, train=train, key=key)
        arrays = [part.first(x)[:, None], part.of(x)] if part.apart else [part.of(x)]
        dropped = [drop_path(x_BNC, self.rate, train=True, key=key) for x_BNC in arrays]  # one key: the same images
        return jnp.concatenate([x_BNC.reshape(-1, x.shape[-1]) for x_BNC in dropped])


class ViT(nnx.Module):
    """Patches, class token, position embeddings, blocks, LayerNorm; the class token comes out.

    Args:
      features: width.
      heads: of the attention.
      depth: blocks.
      patches: what makes patches of 16x16 pixels.
      options: names of `models.options`.

    Attributes:
      resampled: whether position embeddings are resampled at their own size, too, as the released fine-tuning does.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        depth: int = 12,
        patches: type[PatchEmbed] | type[PlainPatchEmbed] = PatchEmbed,
        *,
        drop_path: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        options: Sequence[str] = (),
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat, self.resampled = features, remat, False
        self.options = tuple(options)
        self.patch_embed = patches(features, **kw)
        self.cls_token = nnx.Param(TRUNCATED(rngs.params(), (1, 1, features), jnp.float32))
        self.pos_embed = nnx.Param(TRUNCATED(rngs.params(), (1, 1 + GRID[0] * GRID[1], features), jnp.float32))
        linear = linear_of(options)
        self.blocks = Layers(Block(features, heads, rate, linear, **kw) for rate in drop_path_rates(drop_path, depth))
        self.norm = LayerNorm(features, EPS, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 16 -> [B, features]."""
        tokens_BNC, part = self._tokens(x_BHWC, train), None
        if self.options:
            tokens_BNC, part = self._rows(tokens_BNC)
        x = run(self.blocks, _channels_innermost(tokens_BNC), train=train, key=key, remat=self.remat, part=part)
        return self.norm(part.first(x) if part else x[:, 0])

    def _tokens(self, x_BHWC: jax.Array, train: bool) -> jax.Array:
        """Class token and patches, [B, N, C]."""
        x_BhwC = self.patch_embed(x_BHWC, train=train)
        B, h, w, C = x_BhwC.shape
        cls_B1C = jnp.broadcast_to(self.cls_token[...], (B, 1, C))
        x_BNC = jnp.concatenate([cls_B1C, x_BhwC.reshape(B, h * w, C)], axis=1) + self._positions(h, w)
        return x_BNC.astype(x_BhwC.dtype)

    def _rows(self, x_BNC: jax.Array) -> tuple[jax.Array, Part]:
        """Tokens as rows, as the options say."""
        B, N, C = x_BNC.shape
        if "class_token_apart" in self.options:
            return jnp.concatenate([x_BNC[:, 0], x_BNC[:, 1:].reshape(-1, C)]), Part(B, N - 1, N - 1, apart=True)
        more = -N % TOKENS if "padded_tokens" in self.options else 0
        filled = jnp.pad(x_BNC, ((0, 0), (0, more), (0, 0)))
        return filled.reshape(-1, C), Part(B, N + more, N)

    def _positions(self, h: int, w: int) -> jax.Array:
        """[1, 1 + h w, C]; weights of a file may have those of the very grid that is wanted instead of GRID's."""
        pos_1NC = self.pos_embed[...]
        count = pos_1NC.shape[1] - 1
        if count != GRID[0] * GRID[1]:
            if count != h * w:
                raise ConfigError(f"position embeddings of {count} patches, got an image of {h}x{w}; give its size")
            return pos_1NC
        return resized(pos_1NC, h, w, always=self.resampled)


def resized(pos_1NC: jax.Array, h: int, w: int, *, always: bool = False) -> jax.Array:
    """[1, 1 + h w, C] of GRID's; the class token's stays as it is. See `layers.resize_positions`."""
    grid = resize_positions(pos_1NC[:, 1:].reshape(1, *GRID, -1), h, w, always=always)
    return jnp.concatenate([pos_1NC[:, :1], grid.reshape(1, h * w, -1)], axis=1)


def _channels_innermost(x: jax.Array) -> jax.Array:
    """The same, laid out so in a GPU's memory. XLA would put the images there, as suits the product before, and then
    transpose in every LayerNorm (ViT-B: 7% of a step)."""
    innermost = Layout(major_to_minor=tuple(range(x.ndim)))
    return ops.by_cuda(lambda x: with_layout_constraint(x, innermost), lambda x: x, x)


BACKBONES.register_all(
    {
        "vit_tiny": partial(ViT, 192, 3),
        "vit_small": partial(ViT, 384, 6),
        "vit_base": partial(ViT, 768, 12),
        "vit_small_patch16": partial(ViT, 384, 6, patches=PlainPatchEmbed),
        "vit_base_patch16": partial(ViT, 768, 12, patches=PlainPatchEmbed),
        "vit_large_patch16": partial(ViT, 1024, 16, 24, PlainPatchEmbed),
    }
)

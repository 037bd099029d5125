"""RepViT (arXiv 2307.09283) with the parallel branches that it is trained with."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models import mobile, ops
from cion_jax.models.activations import gelu
from cion_jax.models.depthwise import Depthwise
from cion_jax.models.fuse import added, identity, set_taps, taps
from cion_jax.models.layers import BatchNorm, Layers, run
from cion_jax.models.mobile import UNIFORM, SqueezeExcite, multiple
from cion_jax.models.registry import BACKBONES

ConvBN = partial(mobile.ConvBN, names=("c", "bn"))


class RepVGGDW(nnx.Module):
    """Depthwise 3x3 with BatchNorm, depthwise 1x1 and identity, summed, then BatchNorm: one 3x3 after training."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv = ConvBN(features, features, 3, depthwise=True, **kw)
        self.conv1 = Depthwise(features, 1, init=UNIFORM, **kw)
        self.bn = BatchNorm(features, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return self.bn(self.conv(x_BHWC, train=train) + self.conv1(x_BHWC) + x_BHWC, train=train)

    def fuse(self) -> nnx.Module:
        """The branches and the norm as the one convolution."""
        branch = taps(self.conv.convolution)
        factor, offset, _ = self.bn.fold()
        set_taps(self.conv.convolution, added(branch, taps(self.conv1), identity(branch)).scaled(factor, offset))
        return self.conv


class ChannelMixer(nnx.Module):
    """Two 1x1 convolutions beside a shortcut; the branch starts at zero."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.m = Layers({0: ConvBN(features, 2 * features, **kw), 2: ConvBN(2 * features, features, scale=0.0, **kw)})

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        widen, narrow = self.m
        return x_BHWC + narrow(gelu(widen(x_BHWC, train=train)), train=train)


class Block(nnx.Module):
    """Depthwise branches, squeeze-and-excite in every second block, channel mixer."""

    def __init__(self, features: int, excite: bool, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        mixer: list[nnx.Module] = [RepVGGDW(features, **kw)]
        if excite:
            mixer.append(SqueezeExcite(features, multiple(features / 4), jax.nn.hard_sigmoid, **kw))
        self.token_mixer = Layers(mixer)
        self.channel_mixer = ChannelMixer(features, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        branches, *excite = self.token_mixer
        x = branches(x_BHWC, train=True) if train else ops.image_by_image(partial(branches, train=False), x_BHWC)
        for layer in excite:
            x = layer(x)
        return self.channel_mixer(x, train=train)


class Downsample(nnx.Module):
    """Depthwise 3x3 of stride 2, 1x1 to twice the width, channel mixer."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.token_mixer = Layers(
            {0: ConvBN(inputs, inputs, 3, 2, depthwise=True, **kw), 2: ConvBN(inputs, outputs, **kw)}
        )
        self.channel_mixer = ChannelMixer(outputs, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / 2, W / 2, outputs]."""
        depthwise, pointwise = self.token_mixer
        return self.channel_mixer(pointwise(depthwise(x_BHWC, train=train), train=train), train=train)


class RepViT(nnx.Module):
    """Stem, four stages, global average.

    Args:
      width: features of the first stage; each stage doubles them.
      depths: blocks per stage, the strided ones between stages not counted.
    """

    def __init__(
        self,
        width: int,
        depths: tuple[int, ...],
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        stem = Layers({0: ConvBN(3, width // 2, 3, 2, **kw), 2: ConvBN(width // 2, width, 3, 2, **kw)})
        blocks: list[nnx.Module] = []
        for stage, depth in enumerate(depths):
            if stage:
                blocks.append(Downsample(width, 2 * width, **kw))
                width *= 2
            blocks += [Block(width, n % 2 == 0 and n < depth - 1, **kw) for n in range(depth)]
        self.features, self.remat = width, remat
        self.features_ = Layers([stem, *blocks])

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 32 -> [B, features]."""
        stem, *blocks = self.features_
        first, second = stem
        x = second(gelu(first(x_BHWC, train=train)), train=train)
        return run(blocks, x, train=train, key=None, remat=self.remat).mean((1, 2))


BACKBONES.register_all(
    {
        "repvit_m0_9": partial(RepViT, 48, (3, 3, 15, 2)),
        "repvit_m1_0": partial(RepViT, 56, (3, 3, 15, 2)),
        "repvit_m1_5": partial(RepViT, 64, (5, 5, 25, 4)),
    }
)

"""FastViT (arXiv 2303.14189) with the parallel branches that it is trained with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models import ops
from cion_jax.models.activations import gelu
from cion_jax.models.attention import Attention
from cion_jax.models.depthwise import Depthwise
from cion_jax.models.fuse import Taps, added, identity, set_taps, taps
from cion_jax.models.layers import (
    TRUNCATED,
    BatchNorm,
    Conv,
    Layers,
    drop_path,
    drop_path_rates,
    run,
)
from cion_jax.models.mobile import UNIFORM, ConvBN, SqueezeExcite
from cion_jax.models.registry import BACKBONES

WIDTHS = (64, 128, 256, 512)
FEATURES = 1024
EXPANSION = 4  # of the MLPs
HEAD_WIDTH = 32
LAYER_SCALE = 1e-5


class MobileOne(nnx.Module):
    """The branches of MobileOne (arXiv 2206.04040), summed: one convolution after training.

    `rbr_conv` is the convolution of the given kernel, `rbr_scale` a 1x1 one where that is larger, `rbr_skip` a
    BatchNorm alone where inputs and outputs have one shape. Neither activation nor squeeze-and-excite is within.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        alike = inputs == outputs and stride == 1
        self.rbr_skip = BatchNorm(outputs, **kw) if alike else None
        self.rbr_conv = Layers([ConvBN(inputs, outputs, kernel, stride, depthwise=depthwise, **kw)])
        self.rbr_scale = ConvBN(inputs, outputs, 1, stride, depthwise=depthwise, **kw) if kernel > 1 else None

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        y = self.rbr_conv[0](x_BHWC, train=train)
        for branch in (self.rbr_skip, self.rbr_scale):
            if branch is not None:
                y += branch(x_BHWC, train=train)
        return y

    @property
    def convolution(self) -> Conv:
        """Its convolution, the only branch once fused."""
        return self.rbr_conv[0].convolution

    def fuse(self) -> nnx.Module:
        """All branches as the one convolution."""
        branches = [taps(self.convolution)]
        if self.rbr_skip is not None:
            factor, offset, _ = self.rbr_skip.fold()
            branches.append(identity(branches[0]).scaled(factor, offset))
        if self.rbr_scale is not None:
            branches.append(taps(self.rbr_scale.convolution))
        set_taps(self.convolution, added(*branches))
        self.rbr_skip = self.rbr_scale = None
        return self


class Skip(nnx.Module):
    """What is left of MobileOne without convolutions."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.rbr_skip = BatchNorm(features, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return self.rbr_skip(x_BHWC, train=train)


class RepMixer(nnx.Module):
    """Token mixer without attention: x + layer_scale (mixer(x) - norm(x)), one depthwise 3x3 after training."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.layer_scale = _layer_scale(features)
        self.norm = Skip(features, **kw)
        self.mixer = MobileOne(features, features, 3, depthwise=True, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        mixed = self.mixer(x_BHWC, train=train) - self.norm(x_BHWC, train=train)
        return x_BHWC + _scaled(self.layer_scale, mixed)

    def fuse(self) -> nnx.Module:
        """The mixer alone, with shortcut, norm and scale in its convolution."""
        mixer = taps(self.mixer.convolution)
        factor, offset, _ = self.norm.rbr_skip.fold()
        mixed = added(mixer, identity(mixer).scaled(-factor, -offset))
        scale = np.asarray(self.layer_scale[...], np.float64).reshape(-1)
        set_taps(self.mixer.convolution, added(identity(mixer), mixed.scaled(scale)))
        return self.mixer


class ConvMlp(nnx.Module):
    """Depthwise 7x7 convolution with BatchNorm, then an MLP of 1x1 convolutions."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        hidden = EXPANSION * features
        self.conv = ConvBN(features, features, 7, depthwise=True, init=TRUNCATED, **kw)
        self.fc1 = Conv(features, hidden, 1, init=TRUNCATED, **kw)
        self.fc2 = Conv(hidden, features, 1, init=TRUNCATED, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return self.fc2(gelu(self.fc1(self.conv(x_BHWC, train=train))))


class RepMixerBlock(nnx.Module):
    """RepMixer, then a convolutional MLP beside a shortcut."""

    def __init__(self, features: int, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.layer_scale = _layer_scale(features)
        self.token_mixer = RepMixer(features, **kw)
        self.convffn = ConvMlp(features, **kw)
        self.rate = rate

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        mixer = partial(self.token_mixer, train=train)
        x = mixer(x_BHWC) if train else ops.image_by_image(mixer, x_BHWC)
        y = _scaled(self.layer_scale, self.convffn(x, train=train))
        return x + drop_path(y, self.rate, train=train, key=key)


class AttentionBlock(nnx.Module):
    """BatchNorm and attention, then a convolutional MLP, each beside a shortcut."""

    def __init__(self, features: int, rate: float, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.layer_scale_1 = _layer_scale(features)
        self.layer_scale_2 = _layer_scale(features)
        self.norm = BatchNorm(features, **kw)
        self.token_mixer = Attention(features, features // HEAD_WIDTH, qkv_bias=False, **kw)
        self.convffn = ConvMlp(features, **kw)
        self.rate = rate

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        B, H, W, C = x_BHWC.shape
        keys = (None, None) if key is None else jax.random.split(key)
        y = self.token_mixer(self.norm(x_BHWC, train=train).reshape(B, H * W, C)).reshape(B, H, W, C)
        x = x_BHWC + drop_path(_scaled(self.layer_scale_1, y), self.rate, train=train, key=keys[0])
        y = _scaled(self.layer_scale_2, self.convffn(x, train=train))
        return x + drop_path(y, self.rate, train=train, key=keys[1])

    def fuse(self) -> nnx.Module:
        """The norm as part of the projection to queries, keys and values."""
        factor, offset, rest = self.norm.fold()
        kernel, bias = taps(self.token_mixer.qkv)
        set_taps(self.token_mixer.qkv, Taps(factor[:, None] * kernel, bias + offset @ kernel))
        self.norm = rest  # type: ignore[assignment]
        return self


class LargeKernel(nnx.Module):
    """Depthwise 7x7 and 3x3 convolutions of stride 2 to twice the width, summed: one 7x7 after training."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"depthwise": True, "dtype": dtype, "rngs": rngs}
        self.lkb_origin = ConvBN(inputs, outputs, 7, 2, **kw)
        self.small_conv = ConvBN(inputs, outputs, 3, 2, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / 2, W / 2, outputs]; the reference has no activation here either."""
        return self.lkb_origin(x_BHWC, train=train) + self.small_conv(x_BHWC, train=train)

    def fuse(self) -> nnx.Module:
        """Both as the one of the larger kernel."""
        large, small = self.lkb_origin.convolution, self.small_conv.convolution
        set_taps(large, added(taps(large), taps(small)))
        return self.lkb_origin


class PatchEmbed(nnx.Module):
    """Between stages: half the size, twice the width."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.proj = Layers([LargeKernel(inputs, outputs, **kw), MobileOne(outputs, outputs, **kw)])

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / 2, W / 2, outputs]."""
        large, pointwise = self.proj
        return gelu(pointwise(large(x_BHWC, train=train), train=train))


class PositionalEncoding(nnx.Module):
    """Conditional positional encoding (arXiv 2102.10882): a depthwise 7x7 convolution beside a shortcut."""

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.pe = Depthwise(features, 7, init=UNIFORM, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return x_BHWC + self.pe(x_BHWC)


class Expansion(MobileOne):
    """The last convolution: MobileOne branches of twice the width, then squeeze-and-excite."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        super().__init__(inputs, outputs, 3, depthwise=True, **kw)
        self.se = SqueezeExcite(outputs, outputs // 16, jax.nn.sigmoid, names=("reduce", "expand"), **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, inputs] -> [B, H, W, outputs]."""
        return self.se(super().__call__(x_BHWC, train=train))


class FastViT(nnx.Module):
    """Stem of three MobileOne layers, four stages, expansion, global average.

    Args:
      depths: blocks per stage.
      attention: attention instead of RepMixer in the last stage.
      drop_path: highest rate of stochastic depth.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        attention: bool,
        *,
        drop_path: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat = FEATURES, remat
        width = WIDTHS[0]
        self.patch_embed = Layers(
            [
                MobileOne(3, width, 3, 2, **kw),
                MobileOne(width, width, 3, 2, depthwise=True, **kw),
                MobileOne(width, width, **kw),
            ]
        )
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        network: list[nnx.Module] = []
        for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            last = stage == len(depths) - 1
            if stage:
                network.append(PatchEmbed(WIDTHS[stage - 1], width, **kw))
            if attention and last:
                network.append(PositionalEncoding(width, **kw))
            block = AttentionBlock if attention and last else RepMixerBlock
            network.append(Layers(block(width, next(rates), **kw) for _ in range(depth)))
        self.network = Layers(network)
        self.conv_exp = Expansion(WIDTHS[-1], FEATURES, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 32 -> [B, features]."""
        x = x_BHWC
        for layer in self.patch_embed:
            x = gelu(layer(x, train=train))
        x = run(self._blocks(), x, train=train, key=key, remat=self.remat)
        return gelu(self.conv_exp(x, train=train)).mean((1, 2))

    def _blocks(self) -> Iterator[nnx.Module]:
        for layer in self.network:
            yield from layer if isinstance(layer, Layers) else (layer,)


def _layer_scale(features: int) -> nnx.Param:
    return nnx.Param(jnp.full((features, 1, 1), LAYER_SCALE, jnp.float32))


def _scaled(layer_scale: nnx.Param, x_BHWC: jax.Array) -> jax.Array:
    return layer_scale[...].reshape(-1).astype(x_BHWC.dtype) * x_BHWC


BACKBONES.register_all(
    {
        "fastvit_s12": partial(FastViT, (2, 2, 6, 2), False),
        "fastvit_sa12": partial(FastViT, (2, 2, 6, 2), True),
        "fastvit_sa24": partial(FastViT, (4, 4, 12, 4), True),
    }
)

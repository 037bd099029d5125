"""OSNet (arXiv 1905.00953), with InstanceNorm OSNet-IBN and OSNet-AIN (arXiv 1910.06827).

The public files hold two layouts of one network: OSNet-AIN has its streams numbered and the pooling between stages
beside them, all others have them lettered and the pooling as a stage's last member. Their classifier of the identities
that a file was trained on is not part of the backbone.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike

from cion_jax.models.depthwise import Depthwise
from cion_jax.models.layers import KAIMING, BatchNorm, Conv, InstanceNorm, Layers, Linear, run
from cion_jax.models.mobile import SqueezeExcite
from cion_jax.models.pooling import max_pool
from cion_jax.models.registry import BACKBONES

FEATURES = 512
STREAMS = 4  # of one to four lite convolutions, so of receptive fields 3 to 9
BOTTLENECK, GATE = 4, 16  # a block's width over that of its streams, and theirs over that of their gate
_STAGES = ("conv2", "conv3", "conv4")

# Where a block has InstanceNorm: nowhere, behind the sum with its shortcut, in place of the branch's last BatchNorm.
Instance = Literal["", "after", "inside"]


class Unit(nnx.Module):
    """Convolution without bias and what normalizes it: BatchNorm, InstanceNorm or nothing."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        norm: type[BatchNorm] | type[InstanceNorm] | None = BatchNorm,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv = Conv(inputs, outputs, kernel, stride, kernel // 2, bias=False, **kw)
        self.bn: BatchNorm | InstanceNorm | None = None if norm is None else norm(outputs, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        y = self.conv(x_BHWC)
        if isinstance(self.bn, InstanceNorm):
            return self.bn(y)
        return y if self.bn is None else self.bn(y, train=train)

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """The pair, for `fuse`."""
        return (("conv", "bn"),) if isinstance(self.bn, BatchNorm) else ()


class Lite(nnx.Module):
    """The lite 3x3 convolution: a 1x1 convolution, a depthwise 3x3 one, BatchNorm, ReLU."""

    folds = (("conv2", "bn"),)

    def __init__(self, features: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv1 = Conv(features, features, 1, bias=False, **kw)
        self.conv2 = Depthwise(features, 3, bias=False, init=KAIMING, **kw)
        self.bn = BatchNorm(features, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        return jax.nn.relu(self.bn(self.conv2(self.conv1(x_BHWC)), train=train))


class Stream(nnx.Module):
    """Lite convolutions one after another, as OSNet-AIN's files name them."""

    def __init__(self, features: int, depth: int, **kw: Any):
        self.layers = Layers([Lite(features, **kw) for _ in range(depth)])


class Block(nnx.Module):
    """Four streams of different receptive fields, weighted per image and channel by one gate, beside a shortcut.

    Args:
      instance: where it has InstanceNorm.
      numbered: its streams are named as OSNet-AIN's files do.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        instance: Instance = "",
        numbered: bool = False,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        width = outputs // BOTTLENECK
        self.numbered = numbered
        self.conv1 = Unit(inputs, width, **kw)
        if numbered:
            self.conv2 = Layers([Stream(width, depth, **kw) for depth in range(1, STREAMS + 1)])
        else:
            self.conv2a = Lite(width, **kw)
            for letter, depth in zip("bcd", range(2, STREAMS + 1), strict=True):
                setattr(self, f"conv2{letter}", Layers([Lite(width, **kw) for _ in range(depth)]))
        self.gate = SqueezeExcite(width, width // GATE, jax.nn.sigmoid, init=KAIMING, names=("fc1", "fc2"), **kw)
        self.conv3 = Unit(width, outputs, norm=None if instance == "inside" else BatchNorm, **kw)
        self.downsample = None if inputs == outputs else Unit(inputs, outputs, **kw)
        self.inside = instance == "inside"
        self.IN = InstanceNorm(outputs, **kw) if instance else None

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, inputs] -> [B, H, W, outputs]."""
        y = jax.nn.relu(self.conv1(x_BHWC, train=train))
        streams = [run(stream, y, train=train, key=None, remat=False) for stream in self._streams()]
        y = self.conv3(reduce(jnp.add, map(self.gate, streams)), train=train)
        if self.IN is not None and self.inside:
            y = self.IN(y)
        y = y + (x_BHWC if self.downsample is None else self.downsample(x_BHWC, train=train))
        if self.IN is not None and not self.inside:
            y = self.IN(y)
        return jax.nn.relu(y)

    def _streams(self) -> list:
        if self.numbered:
            return [stream.layers for stream in self.conv2]
        return [[self.conv2a], *(getattr(self, f"conv2{letter}") for letter in "bcd")]


class OSNet(nnx.Module):
    """Stem, three stages of two blocks, a 1x1 convolution, global average, and a linear layer with BatchNorm and ReLU.

    Args:
      channels: of the stem and of the stages.
      blocks: where each of a stage's two blocks has InstanceNorm, per stage.
      instance: InstanceNorm in the stem as well.
      numbered: the layout of OSNet-AIN's files.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int],
        blocks: tuple[tuple[Instance, Instance], ...] = (("", ""),) * 3,
        instance: bool = False,
        numbered: bool = False,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.numbered, self.remat = FEATURES, numbered, remat
        self.conv1 = Unit(3, channels[0], 7, 2, norm=InstanceNorm if instance else BatchNorm, **kw)
        for stage, kinds, inputs, outputs in zip(_STAGES, blocks, channels[:-1], channels[1:], strict=True):
            widths = (inputs, outputs)
            pair: list[Any] = [Block(w, outputs, k, numbered, **kw) for w, k in zip(widths, kinds, strict=True)]
            between: list[Any] = [] if stage == _STAGES[-1] else [Layers([Unit(outputs, outputs, **kw)])]
            setattr(self, stage, Layers(pair if numbered else pair + between))
            if numbered and between:
                setattr(self, stage.replace("conv", "pool"), between[0])
        self.conv5 = Unit(channels[-1], channels[-1], **kw)
        start = initializers.normal(0.01)
        self.fc = Layers([Linear(channels[-1], FEATURES, init=start, **kw), BatchNorm(FEATURES, **kw)])

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 16 -> [B, features], none of them negative."""
        x = jax.nn.relu(self.conv1(x_BHWC, train=train))
        x = max_pool(x, 3, 2, 1)
        for stage in _STAGES:
            first, second, *_ = getattr(self, stage)
            x = run((first, second), x, train=train, key=None, remat=self.remat)
            if stage != _STAGES[-1]:
                x = _halved(jax.nn.relu(self._between(stage)(x, train=train)))
        x = jax.nn.relu(self.conv5(x, train=train)).mean((1, 2))
        linear, norm = self.fc
        return jax.nn.relu(norm(linear(x), train=train))

    def _between(self, stage: str) -> Unit:
        """What comes before the pooling behind a stage."""
        return (getattr(self, stage.replace("conv", "pool")) if self.numbered else getattr(self, stage)[2])[0]


def _halved(x_BHWC: jax.Array) -> jax.Array:
    """Means of 2x2 pixels; an odd last row or column is left out, as in PyTorch."""
    B, H, W, C = x_BHWC.shape
    return x_BHWC[:, : H // 2 * 2, : W // 2 * 2].reshape(B, H // 2, 2, W // 2, 2, C).mean((2, 4))


_WIDTHS = {"x0_25": (16, 64, 96, 128), "x0_5": (32, 128, 192, 256), "x0_75": (48, 192, 288, 384)}
_WIDEST = (64, 256, 384, 512)
BACKBONES.register_all(
    {
        **{f"osnet_{name}": partial(OSNet, channels) for name, channels in _WIDTHS.items()},
        "osnet_x1_0": partial(OSNet, _WIDEST),
        "osnet_ibn_x1_0": partial(OSNet, _WIDEST, (("after", "after"), ("", ""), ("", "")), True),
        # The places of InstanceNorm that the search of arXiv 1910.06827 found.
        "osnet_ain_x1_0": partial(OSNet, _WIDEST, (("inside", "inside"), ("", "inside"), ("inside", "")), True, True),
    }
)

"""ResNet (arXiv 1512.03385) and ResNet-IBN-a (arXiv 1807.09441), the last stage of stride 1."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models.layers import IBN, BatchNorm, Conv, Layers, run
from cion_jax.models.pooling import max_pool
from cion_jax.models.registry import BACKBONES

_STAGES = ("layer1", "layer2", "layer3", "layer4")


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1
    folds = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, inputs: int, width: int, stride: int, ibn: bool, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv1 = Conv(inputs, width, 3, stride, padding=1, bias=False, **kw)
        self.bn1 = (IBN if ibn else BatchNorm)(width, **kw)
        self.conv2 = Conv(width, width, 3, padding=1, bias=False, **kw)
        self.bn2 = BatchNorm(width, **kw)
        self.downsample = _downsample(inputs, width, stride, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / stride, W / stride, width]."""
        y = jax.nn.relu(self.bn1(self.conv1(x_BHWC), train=train))
        y = self.bn2(self.conv2(y), train=train)
        return jax.nn.relu(y + _shortcut(self.downsample, x_BHWC, train))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (which carries the stride) and 1x1 convolutions beside a shortcut."""

    expansion = 4
    folds = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, inputs: int, width: int, stride: int, ibn: bool, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        outputs = self.expansion * width
        self.conv1 = Conv(inputs, width, 1, bias=False, **kw)
        self.bn1 = (IBN if ibn else BatchNorm)(width, **kw)
        self.conv2 = Conv(width, width, 3, stride, padding=1, bias=False, **kw)
        self.bn2 = BatchNorm(width, **kw)
        self.conv3 = Conv(width, outputs, 1, bias=False, **kw)
        self.bn3 = BatchNorm(outputs, **kw)
        self.downsample = _downsample(inputs, outputs, stride, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / stride, W / stride, 4 width]."""
        y = jax.nn.relu(self.bn1(self.conv1(x_BHWC), train=train))
        y = jax.nn.relu(self.bn2(self.conv2(y), train=train))
        y = self.bn3(self.conv3(y), train=train)
        return jax.nn.relu(y + _shortcut(self.downsample, x_BHWC, train))


class ResNet(nnx.Module):
    """Stem, four stages, global average.

    Args:
      block: BasicBlock or Bottleneck.
      depths: blocks per stage.
      ibn: IBN after the first convolution of every block of the first three stages.
    """

    folds = (("conv1", "bn1"),)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        ibn: bool = False,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat = 512 * block.expansion, remat
        self.conv1 = Conv(3, 64, 7, 2, padding=3, bias=False, **kw)
        self.bn1 = BatchNorm(64, **kw)
        inputs = 64
        for stage, depth, width, stride in zip(_STAGES, depths, (64, 128, 256, 512), (1, 2, 2, 1), strict=True):
            blocks = []
            for number in range(depth):
                blocks.append(block(inputs, width, 1 if number else stride, ibn and stage != "layer4", **kw))
                inputs = width * block.expansion
            setattr(self, stage, Layers(blocks))

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 16 -> [B, features]."""
        return self.maps(x_BHWC, train=train).mean((1, 2))

    def maps(self, x_BHWC: jax.Array, *, train: bool = False) -> jax.Array:
        """The same before the average: [B, H / 16, W / 16, features]."""
        x = jax.nn.relu(self.bn1(self.conv1(x_BHWC), train=train))
        x = max_pool(x, 3, 2, 1)
        for stage in _STAGES:
            x = run(getattr(self, stage), x, train=train, key=None, remat=self.remat)
        return x


def _downsample(inputs: int, outputs: int, stride: int, **kw: Any) -> Layers | None:
    if stride == 1 and inputs == outputs:
        return None
    return Layers([Conv(inputs, outputs, 1, stride, bias=False, **kw), BatchNorm(outputs, **kw)])


def _shortcut(downsample: Layers | None, x_BHWC: jax.Array, train: bool) -> jax.Array:
    if downsample is None:
        return x_BHWC
    conv, norm = downsample
    return norm(conv(x_BHWC), train=train)


BACKBONES.register_all(
    {
        name + ("_ibn" if ibn else ""): partial(ResNet, block, depths, ibn)
        for ibn in (False, True)
        for name, block, depths in (
            ("resnet18", BasicBlock, (2, 2, 2, 2)),
            ("resnet50", Bottleneck, (3, 4, 6, 3)),
            ("resnet101", Bottleneck, (3, 4, 23, 3)),
            ("resnet152", Bottleneck, (3, 8, 36, 3)),
        )
    }
)

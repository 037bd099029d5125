"""GhostNet (arXiv 1911.11907): half of the features are made from the other half by depthwise convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models.depthwise import Depthwise
from cion_jax.models.layers import BatchNorm, Conv, Layers, run
from cion_jax.models.mobile import UNIFORM, ConvBN, SqueezeExcite, multiple
from cion_jax.models.registry import BACKBONES

FEATURES = 1280
NUMBERED = ("0", "1")

# The paper's table 1 at width 1, per stage and block: kernel, hidden width, width, squeeze-and-excite, stride.
_PLAIN, _EXCITED = (3, 960, 160, False, 1), (3, 960, 160, True, 1)
STAGES = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    (_PLAIN, _EXCITED, _PLAIN, _EXCITED),
)


class GhostModule(nnx.Module):
    """1x1 convolution to half of the outputs, a depthwise one of those to the other half, each with BatchNorm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: Callable[[jax.Array], jax.Array],
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"names": NUMBERED, "dtype": dtype, "rngs": rngs}
        half = outputs // 2
        self.primary_conv = ConvBN(inputs, half, **kw)
        self.cheap_operation = ConvBN(half, half, 3, depthwise=True, **kw)
        self.activation = activation

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, inputs] -> [B, H, W, outputs]."""
        y = self.activation(self.primary_conv(x_BHWC, train=train))
        return jnp.concatenate([y, self.activation(self.cheap_operation(y, train=train))], axis=-1)


class GhostBottleneck(nnx.Module):
    """Ghost module to the hidden width, depthwise convolution where strided, ghost module back; and a shortcut."""

    folds = (("conv_dw", "bn_dw"),)

    def __init__(
        self,
        inputs: int,
        kernel: int,
        hidden: int,
        outputs: int,
        excite: bool,
        stride: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.stride = stride
        self.ghost1 = GhostModule(inputs, hidden, jax.nn.relu, **kw)
        if stride > 1:
            self.conv_dw = Depthwise(hidden, kernel, stride, bias=False, init=UNIFORM, **kw)
            self.bn_dw = BatchNorm(hidden, **kw)
        self.se = SqueezeExcite(hidden, multiple(hidden / 4), jax.nn.hard_sigmoid, **kw) if excite else None
        self.ghost2 = GhostModule(hidden, outputs, _identity, **kw)
        self.shortcut = _shortcut(inputs, kernel, outputs, stride, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        y = self.ghost1(x_BHWC, train=train)
        if self.stride > 1:
            y = self.bn_dw(self.conv_dw(y), train=train)
        if self.se is not None:
            y = self.se(y)
        y = self.ghost2(y, train=train)
        if self.shortcut is not None:
            depthwise, norm, pointwise, last_norm = self.shortcut
            x_BHWC = last_norm(pointwise(norm(depthwise(x_BHWC), train=train)), train=train)
        return y + x_BHWC


class GhostNet(nnx.Module):
    """Stem, nine stages, 1x1 convolution, global average, linear layer.

    Args:
      width: factor on the widths of the paper's table.
    """

    folds = (("conv_stem", "bn1"),)

    def __init__(self, width: float, *, dtype: DTypeLike = jnp.float32, remat: bool = False, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat = FEATURES, remat
        inputs = multiple(16 * width)
        self.conv_stem = Conv(3, inputs, 3, 2, padding=1, bias=False, init=UNIFORM, **kw)
        self.bn1 = BatchNorm(inputs, **kw)
        stages = []
        for rows in STAGES:
            blocks = []
            for kernel, hidden, outputs, excite, stride in rows:
                hidden, outputs = multiple(hidden * width), multiple(outputs * width)
                blocks.append(GhostBottleneck(inputs, kernel, hidden, outputs, excite, stride, **kw))
                inputs = outputs
            stages.append(Layers(blocks))
        last = multiple(STAGES[-1][-1][1] * width)
        self.blocks = Layers([*stages, Layers([ConvBN(inputs, last, names=("conv", "bn1"), **kw)])])
        self.conv_head = Conv(last, FEATURES, 1, init=UNIFORM, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W multiples of 32 -> [B, features]."""
        x = jax.nn.relu(self.bn1(self.conv_stem(x_BHWC), train=train))
        *stages, last = self.blocks
        for stage in stages:
            x = run(stage, x, train=train, key=None, remat=self.remat)
        x = jax.nn.relu(last[0](x, train=train))
        return jax.nn.relu(self.conv_head(x.mean((1, 2), keepdims=True))).squeeze((1, 2))


def _shortcut(inputs: int, kernel: int, outputs: int, stride: int, **kw: Any) -> Layers | None:
    if stride == 1 and inputs == outputs:
        return None
    start = {"bias": False, "init": UNIFORM, **kw}
    depthwise, pointwise = Depthwise(inputs, kernel, stride, **start), Conv(inputs, outputs, 1, **start)
    return Layers([depthwise, BatchNorm(inputs, **kw), pointwise, BatchNorm(outputs, **kw)])


def _identity(x: jax.Array) -> jax.Array:
    return x


BACKBONES.register_all(
    {
        "ghostnet_0_5": partial(GhostNet, 0.5),
        "ghostnet_1_0": partial(GhostNet, 1.0),
        "ghostnet_1_3": partial(GhostNet, 1.3),
    }
)

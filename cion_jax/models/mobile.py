"""What the mobile families share: convolution with BatchNorm, squeeze-and-excite, widths by the multiple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike

from cion_jax.models.depthwise import Depthwise
from cion_jax.models.layers import BatchNorm, Conv

UNIFORM = initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's own start of a convolution


class ConvBN(nnx.Module):
    """Convolution without bias, padded to keep the size at stride 1, then BatchNorm: one convolution after training.

    Args:
      depthwise: every output channel sees one input channel alone; there may be several outputs to an input.
      scale: what BatchNorm's scale starts at.
      init: what the kernel starts from.
      names: of the two in the PyTorch state dict, which differ between families.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        scale: float = 1.0,
        init: Callable = UNIFORM,
        names: tuple[str, str] = ("conv", "bn"),
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        start = {"bias": False, "init": init, **kw}
        self.names = names
        if depthwise:
            conv: Conv = Depthwise(inputs, kernel, stride, outputs // inputs, **start)
        else:
            conv = Conv(inputs, outputs, kernel, stride, kernel // 2, **start)
        setattr(self, names[0], conv)
        setattr(self, names[1], BatchNorm(outputs, scale=scale, **kw))

    def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
        """[B, H, W, inputs] -> [B, H / stride, W / stride, outputs]."""
        conv, norm = (getattr(self, name) for name in self.names)
        return norm(conv(x_BHWC), train=train)

    @property
    def folds(self) -> tuple[tuple[str, str], ...]:
        """The pair, for `fuse`."""
        return (self.names,)

    @property
    def convolution(self) -> Conv:
        """Its convolution, whatever its name."""
        return getattr(self, self.names[0])


class SqueezeExcite(nnx.Module):
    """Scales every channel by what two 1x1 convolutions make of the channels' means (arXiv 1709.01507).

    Args:
      hidden: width between the two.
      gate: maps their result to the factors.
      init: what the kernels start from.
      names: of the two in the PyTorch state dict.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        gate: Callable[[jax.Array], jax.Array],
        *,
        init: Callable = UNIFORM,
        names: tuple[str, str] = ("conv_reduce", "conv_expand"),
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"init": init, "dtype": dtype, "rngs": rngs}
        self.gate, self.names = gate, names
        setattr(self, names[0], Conv(features, hidden, 1, **kw))
        setattr(self, names[1], Conv(hidden, features, 1, **kw))

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        reduce, expand = (getattr(self, name) for name in self.names)
        return x_BHWC * self.gate(expand(jax.nn.relu(reduce(x_BHWC.mean((1, 2), keepdims=True)))))


def multiple(width: float, of: int = 4) -> int:
    """The multiple nearest to a width, half rounded up; the next one where that loses more than a tenth of it."""
    nearest = max(of, int(width + of / 2) // of * of)
    return nearest if nearest >= 0.9 * width else nearest + of

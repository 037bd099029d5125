"""ConvNeXt (arXiv 2201.03545): 7x7 depthwise convolutions and pointwise MLPs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models.activations import gelu
from cion_jax.models.depthwise import Depthwise
from cion_jax.models.layers import (
    TRUNCATED,
    Conv,
    LayerNorm,
    Layers,
    Linear,
    drop_path,
    drop_path_rates,
    run,
)
from cion_jax.models.registry import BACKBONES

EPS = 1e-6
LAYER_SCALE = 1e-6


class Block(nnx.Module):
    """Depthwise convolution, LayerNorm and a pointwise MLP beside a shortcut."""

    def __init__(self, features: int, rate: float, kernel: int = 7, *, dtype: DTypeLike, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.gamma = nnx.Param(jnp.full(features, LAYER_SCALE, jnp.float32))
        self.dwconv = Depthwise(features, kernel, init=TRUNCATED, **kw)
        self.norm = LayerNorm(features, EPS, **kw)
        self.pwconv1 = Linear(features, 4 * features, **kw)
        self.pwconv2 = Linear(4 * features, features, **kw)
        self.rate = rate

    def __call__(self, x_BHWC: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        y = self.pwconv2(gelu(self.pwconv1(self.norm(self.dwconv(x_BHWC)))))
        return x_BHWC + drop_path(self.gamma[...].astype(y.dtype) * y, self.rate, train=train, key=key)


class ConvNeXt(nnx.Module):
    """Four stages, each after a strided convolution; global average; LayerNorm.

    Args:
      depths: blocks per stage.
      widths: features per stage.
      block: called as `block(features, rate, stage=, last=, dtype=, rngs=)`, where `last` is true of a stage's last.
      drop_path: highest rate of stochastic depth.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        block: Callable[..., nnx.Module],
        *,
        drop_path: float = 0.0,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.features, self.remat = widths[-1], remat
        inputs = (3, *widths[:-1])
        self.downsample_layers = Layers(_downsample(*pair, **kw) for pair in zip(inputs, widths, strict=True))
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        self.stages = Layers(
            Layers(block(features, next(rates), stage=stage, last=n == depth - 1, **kw) for n in range(depth))
            for stage, (features, depth) in enumerate(zip(widths, depths, strict=True))
        )
        self.norm = LayerNorm(self.features, EPS, **kw)

    def __call__(self, x_BHWC: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] normalized images, H and W at least 32 -> [B, features].

        What a stage's stride leaves over at the lower and right border is not seen.
        """
        x = x_BHWC
        for number, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            for layer in downsample:
                x = layer(x)
            own = None if key is None else jax.random.fold_in(key, number)
            x = run(stage, x, train=train, key=own, remat=self.remat)
        return self.norm(x.mean((1, 2)))


def _downsample(inputs: int, outputs: int, **kw: Any) -> Layers:
    """The stem (by 4, norm last) for images, by 2 (norm first) between stages."""
    if inputs == 3:
        return Layers([Conv(inputs, outputs, 4, 4, init=TRUNCATED, **kw), LayerNorm(outputs, EPS, **kw)])
    return Layers([LayerNorm(inputs, EPS, **kw), Conv(inputs, outputs, 2, 2, init=TRUNCATED, **kw)])


def _block(features: int, rate: float, *, stage: int, last: bool, **kw: Any) -> Block:
    return Block(features, rate, **kw)


_WIDTHS = (96, 192, 384, 768)
BACKBONES.register_all(
    {
        "convnext_tiny": partial(ConvNeXt, (3, 3, 9, 3), _WIDTHS, _block),
        "convnext_small": partial(ConvNeXt, (3, 3, 27, 3), _WIDTHS, _block),
        "convnext_base": partial(ConvNeXt, (3, 3, 27, 3), (128, 256, 512, 1024), _block),
    }
)

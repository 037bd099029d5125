"""Backbones for inference: a norm behind a convolution folded into it, parallel branches summed, in float64.

A module takes part by either of two members: `folds`, pairs of names (convolution, the norm applied to its output),
and `fuse()`, which returns what takes the module's place once its own children are fused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Taps(NamedTuple):
    """Kernel [k, k, inputs / groups, outputs] of a convolution, or [inputs, outputs], and bias [outputs], float64."""

    kernel: np.ndarray
    bias: np.ndarray

    def scaled(self, factor: np.ndarray, offset: np.ndarray | float = 0.0) -> Taps:
        """The convolution followed by a factor and an offset per output, [outputs] both."""
        return Taps(self.kernel * factor, self.bias * factor + offset)


def fuse(module: Any) -> Any:
    """A backbone with trained weights -> a smaller one that computes the same in evaluation mode and cannot train.

    The given module stays as it is. Works on arrays, so not under `jax.jit`.
    """
    module = _fuse(nnx.clone(module))
    nnx.update(module, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), nnx.state(module)))
    return module


def taps(conv: Any) -> Taps:
    """What a convolution computes."""
    kernel = np.asarray(conv.kernel[...], np.float64)
    bias = np.zeros(kernel.shape[-1]) if conv.bias is None else np.asarray(conv.bias[...], np.float64)
    return Taps(kernel, bias)


def set_taps(conv: Any, new: Taps) -> None:
    """Makes a convolution compute this; stride and groups stay."""
    kernel: Any = new.kernel
    bias: Any = new.bias
    conv.kernel, conv.bias, conv.use_bias = nnx.Param(kernel), nnx.Param(bias), True


def identity(like: Taps) -> Taps:
    """The 1x1 convolution, as dense or as depthwise as the given one, that returns its input."""
    *_, inputs, outputs = like.kernel.shape
    kernel = np.ones((1, outputs)) if inputs == 1 else np.eye(inputs)
    return Taps(kernel[None, None], np.zeros(outputs))


def added(*branches: Taps) -> Taps:
    """Parallel convolutions of one stride, each padded by half its odd kernel, as one of the largest kernel."""
    size = max(len(branch.kernel) for branch in branches)
    margins = [(size - len(branch.kernel)) // 2 for branch in branches]
    kernels = [np.pad(b.kernel, ((m, m), (m, m), (0, 0), (0, 0))) for b, m in zip(branches, margins, strict=True)]
    return Taps(np.sum(kernels, axis=0), np.sum([branch.bias for branch in branches], axis=0))


def _fuse(module: Any) -> Any:
    for name, child in list(vars(module).items()):
        if isinstance(child, nnx.Module):
            setattr(module, name, _fuse(child))
    for conv, norm in getattr(module, "folds", ()):
        if hasattr(module, norm):
            setattr(module, norm, _fold(getattr(module, conv), getattr(module, norm)))
    return module.fuse() if hasattr(module, "fuse") else module


def _fold(conv: Any, norm: Any) -> Any:
    factor, offset, rest = norm.fold()
    set_taps(conv, taps(conv).scaled(factor, offset))
    return rest

"""BatchNorm's statistics of other images, and the same function: where training on these images should start.

In training BatchNorm normalizes by the batch at hand. A network whose running statistics are not those of the images
that it now sees (another camera, or norms that were folded into convolutions) is another function there than the one
that was served. Here mean and variance become those of the given images, and scale and bias change so that the output
in evaluation mode stays what it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cion_jax import models
from cion_jax.models.layers import BatchNorm
from cion_jax.weights.backbone import Backbone, fit


class _Watched(nnx.Module):
    """A BatchNorm in evaluation mode that keeps the first two moments of what it is given, [C] each."""

    def __init__(self, norm: BatchNorm):
        self.norm = norm
        self.first = nnx.BatchStat(jnp.zeros_like(norm.mean[...]))
        self.second = nnx.BatchStat(jnp.zeros_like(norm.mean[...]))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[..., C] -> [..., C]."""
        axes = tuple(range(x.ndim - 1))
        self.first.set_value(x.mean(axes))
        self.second.set_value(jnp.square(x).mean(axes))
        return self.norm(x, train=False)


def match(backbone: Backbone, images: Iterable[np.ndarray]) -> Backbone:
    """A backbone whose BatchNorms have the statistics of these images, and which computes what the given one does.

    Args:
      backbone: any; one without BatchNorm comes back unchanged.
      images: [h, w, 3] uint8 RGB of any sizes, at least as many as a batch of training has.
    """
    pixels_NHWC = np.stack([fit(image, backbone.size) for image in images])
    watched = _replaced(backbone.module(), lambda norm: _Watched(norm))
    graphdef, *trees = models.split(watched)
    mean, std = (jnp.array(values) for values in (backbone.preprocessing.mean, backbone.preprocessing.std))

    @jax.jit
    def moments(params: dict, stats: dict, x_BHWC: jax.Array) -> dict:
        module = models.merge(graphdef, params, stats)
        module((x_BHWC.astype(jnp.float32) / 255 - mean) / std, train=False)
        return models.split(module)[2]

    size = min(len(pixels_NHWC), backbone.batch_size)
    batches = [pixels_NHWC[at : at + size] for at in range(0, len(pixels_NHWC) - size + 1, size)]
    found = [moments(*trees, batch) for batch in batches]
    average = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *found)
    matched = _replaced(models.merge(graphdef, trees[0], average), _matched, _Watched)
    params, stats = (jax.tree.map(np.asarray, tree) for tree in models.split(matched)[1:])
    return dataclasses.replace(backbone, params=params, stats=stats)


def _matched(watched: _Watched) -> BatchNorm:
    norm = watched.norm
    mean, var = watched.first[...], watched.second[...] - jnp.square(watched.first[...])
    var = jnp.maximum(var, 0.0)
    factor = norm.scale[...] / jnp.sqrt(norm.var[...] + norm.eps)
    norm.bias.set_value(norm.bias[...] + factor * (mean - norm.mean[...]))
    norm.scale.set_value(factor * jnp.sqrt(var + norm.eps))
    norm.mean.set_value(mean)
    norm.var.set_value(var)
    return norm


def _replaced(module: Any, by: Any, kind: type = BatchNorm) -> Any:
    """The module with `by(child)` in place of every child of a kind, however deep."""
    for name, child in list(vars(module).items()):
        if isinstance(child, kind):
            setattr(module, name, by(child))
        elif isinstance(child, nnx.Module):
            _replaced(child, by, kind)
    return module

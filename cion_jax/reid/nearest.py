"""Nearest neighbors among all images, exactly, and what is made of them first: query expansion.

The distance of i and j is that of j and i, so only tiles on and above the diagonal are computed: half of the products
that rows against everything would take, and two tiles' worth of memory.

Shape suffixes: N images, D feature dimensions, K neighbors, B rows and C columns of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors.best import Best
from cion_jax.reid.distances import Between, ScoreError, slices

_TILE = 2048  # rows and columns; 16 MB of float32
_ROWS = 128  # whose neighbors are averaged at a time


@dataclass(frozen=True)
class Neighbors:
    """Result of `neighbors`.

    Attributes:
      index: [N, K] int64, nearest first, equally near ones in the order of their numbers; the image itself counts.
      distance: [N, K], rising.
      farthest: [N], distance of the farthest image.
    """

    index: np.ndarray
    distance: np.ndarray
    farthest: np.ndarray


def neighbors(distances: Between, k: int, seen: Callable[[slice, slice, np.ndarray], None] | None = None) -> Neighbors:
    """The k nearest of every image.

    Args:
      distances: of all images to all images.
      k: 1 .. N.
      seen: is shown every tile: rows, columns, their [B, C] distances; of those below the diagonal the mirror image.
    """
    count = distances.shape[0]
    best, farthest = Best(count, k, distances.dtype), np.zeros(count, distances.dtype)
    for rows in slices(count, _TILE):
        for columns in slices(count, _TILE):
            if columns.start >= rows.start:
                tile_BC = distances.tile(rows, columns)
                _take(best, farthest, rows, columns, tile_BC, axis=1)
                if columns != rows:
                    _take(best, farthest, columns, rows, tile_BC, axis=0)
                if seen:
                    seen(rows, columns, tile_BC)
    return Neighbors(best.index, best.distance, farthest)


def _take(best: Best, farthest: np.ndarray, images: slice, others: slice, tile: np.ndarray, axis: int) -> None:
    """Takes `others`, which lie along an axis of the tile, into account as neighbors of `images`."""
    farthest[images] = np.maximum(farthest[images], tile.max(axis=axis))
    k = best.index.shape[1]
    bound = np.expand_dims(best.distance[images, -1], axis)
    if not np.isfinite(bound).all() and tile.shape[axis] > k:
        bound = np.minimum(bound, np.partition(tile, k - 1, axis=axis).take([k - 1], axis=axis))
    at = np.unravel_index(np.flatnonzero(tile <= bound), tile.shape)
    best.add(at[1 - axis] + images.start, at[axis] + others.start, tile[at])


def expand(x_ND: np.ndarray, k: int, alpha: float = 3.0) -> np.ndarray:
    """Alpha query expansion: every feature becomes the mean of its k nearest ones, weighted, itself included.

    Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", arXiv 1711.02512.

    Args:
      x_ND: features of queries and gallery together, not normalized.
      k: neighbors by cosine similarity.
      alpha: the weights are the similarities to this power.

    Returns:
      [N, D] features in the dtype of the input.
    """
    if not 1 <= k <= len(x_ND):
        raise ScoreError(f"query expansion needs 1 to {len(x_ND)} neighbors (all images), got {k}")
    found = neighbors(Between(x_ND, x_ND), k)
    weight_NK = (1 - found.distance) ** alpha / k
    result = np.empty_like(x_ND)
    for rows in slices(len(x_ND), _ROWS):
        result[rows] = np.einsum("nk,nkd->nd", weight_NK[rows], x_ND[found.index[rows]])
    return result

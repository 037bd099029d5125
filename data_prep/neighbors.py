"""Which rows are near each other: an exact band product in bounded memory, and its connected components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from data_prep.denoise import cosine

_BLOCK = 1024  # rows and columns of one tile: 4 MB of similarities

Links = Iterable[tuple[np.ndarray, np.ndarray]]
"""Pairs in pieces: (i, j), two [n] int64 arrays with i < j."""


def links(rows: np.ndarray, limit: float, half_width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs i < j <= i + half_width of rows [N, d] with cosine distance <= limit, tile by tile.

    The product is formed in float32. Pairs whose distance is within its rounding error of the limit are
    decided again in float64: the result is that of float64 at the speed of float32, O(N half_width d).
    """
    count = len(rows)
    for first in range(0, count, _BLOCK):
        left = cosine.unit(rows[first : first + _BLOCK])
        end = min(first + len(left) + half_width, count)
        for second in range(first, end, _BLOCK):
            right = left if second == first else cosine.unit(rows[second : min(second + _BLOCK, end)])
            i, j = _near(left, right, limit)
            apart = (j + second) - (i + first)
            inside = (apart > 0) & (apart <= half_width)
            if inside.any():
                yield i[inside] + first, j[inside] + second


def _near(left: np.ndarray, right: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs of unit rows with distance <= limit."""
    similarity = left.astype(np.float32) @ right.astype(np.float32).T
    margin = (left.shape[1] + 8) * 2.0**-24  # worst rounding error of a float32 dot product of unit vectors
    i, j = np.nonzero(similarity >= 1 - limit - margin)
    unsure = np.flatnonzero(similarity[i, j] <= 1 - limit + margin)
    keep = np.ones(len(i), bool)
    for part in np.array_split(unsure, len(unsure) // _BLOCK + 1):
        exact = np.einsum("nd,nd->n", left[i[part]], right[j[part]])
        keep[part] = cosine.distance(exact) <= limit
    return i[keep], j[keep]


def components(count: int, pairs: Links) -> np.ndarray:
    """Connected components of `count` nodes, [count] int64, numbered by their first node.

    Every piece of `pairs` is thinned to a spanning forest when it arrives, so that memory is bounded by the
    nodes of the pieces, not by the pairs.
    """
    nothing = np.zeros((2, 0), np.int64)
    i, j = np.concatenate([nothing, *(np.stack(_forest(i, j)) for i, j in pairs)], axis=1)
    return _components(count, i, j)


def _components(count: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    graph = scipy.sparse.coo_array((np.ones(len(i), np.int8), (i, j)), shape=(count, count))
    _, labels = csgraph.connected_components(graph.tocsr(), directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _forest(i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that connect what the given pairs connect, at most one per node."""
    start, split = i.min(), i.max() + 1
    gap = max(0, j.min() - split)  # in a tile off the diagonal no node lies between rows and columns
    labels = _components(int(j.max() - start - gap + 1), i - start, j - start - gap)
    _, first = np.unique(labels, return_index=True)
    node = np.flatnonzero(first[labels] != np.arange(len(labels)))
    nodes = np.arange(len(labels)) + start
    nodes[nodes >= split] += gap
    return nodes[first[labels[node]]], nodes[node]

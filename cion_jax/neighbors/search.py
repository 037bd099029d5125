"""Which rows are near each other: an exact band product in bounded memory, nearest neighbors, components."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from cion_jax.common import room
from cion_jax.common.progress import progress
from cion_jax.neighbors import cosine, linkage
from cion_jax.neighbors.best import Best
from cion_jax.neighbors.labels import numbered
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs

_BLOCK = 1024  # rows and columns of one tile: 4 MB of similarities
_TILE = 2048  # rows and columns that are compared at a time for nearest neighbors
_PIECE_BLOCKS = 64
_PIECE = _BLOCK * _PIECE_BLOCKS  # rows whose links without a range come in one piece
_INDEX = 3 * 2**29  # bytes of rows that one index may hold; while it is built ScaNN takes two and a half times as much
LINKED = 64  # nearest neighbors of which links without a range are taken above `exact` rows, unless told
EXACT = 50_000  # rows up to which nearest neighbors are found by comparing all pairs, unless told

_LOG = logging.getLogger(__name__)

Links = Iterable[tuple[np.ndarray, np.ndarray]]
"""Pairs in pieces: (i, j), two [n] int64 arrays with i < j."""


def identities(
    rows: np.ndarray,
    threshold: float,
    half_width: int,
    cannot: Pairs = NO_PAIRS,
    exact: int = EXACT,
    neighbors: int = LINKED,
) -> np.ndarray:
    """Connected components of `links`, broken up, weakest link first, where they would join a forbidden pair.

    Args:
      rows: [N, d].
      threshold: largest cosine distance of a link.
      half_width: of the range, in rows; N or more means everywhere, which is approximate above `exact` rows.
      cannot: rows that must not end in one group, not through a chain either.
      exact: rows up to which links everywhere are exact.
      neighbors: nearest of every row among which links are looked for beyond that.

    Returns:
      [N] int64, numbered by their first row.
    """
    everywhere = half_width >= len(rows) > exact
    found = near_links(rows, threshold, exact, neighbors) if everywhere else links(rows, threshold, half_width)
    if not len(cannot[0]):
        return components(len(rows), found)
    i, j = np.concatenate([np.zeros((2, 0), np.int64), *(np.stack(pairs) for pairs in found)], axis=1)
    unit = cosine.unit(rows)
    similarity = np.concatenate(
        [
            np.zeros(0),
            *(
                np.einsum("nd,nd->n", unit[i[a : a + _BLOCK]], unit[j[a : a + _BLOCK]])
                for a in range(0, len(i), _BLOCK)
            ),
        ]
    )
    return linkage.single(len(rows), (i, j), similarity, -1, cannot)


def near_links(
    rows: np.ndarray, threshold: float, exact: int = EXACT, neighbors: int = LINKED
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Links among the `neighbors` nearest of every row, decided as in `links`."""
    unit = np.empty(rows.shape, np.float32)
    for first in range(0, len(rows), _BLOCK):
        unit[first : first + _BLOCK] = cosine.unit(rows[first : first + _BLOCK])
    found = nearest(unit, neighbors, exact)
    for piece in range(0, len(rows), _PIECE):
        pairs = [
            _near_of(rows, unit, found, first, threshold) for first in range(piece, len(rows), _BLOCK)[:_PIECE_BLOCKS]
        ]
        i, j = np.concatenate(pairs, axis=1)
        if len(i):
            yield i, j


def _near_of(rows: np.ndarray, unit: np.ndarray, found: np.ndarray, first: int, threshold: float) -> np.ndarray:
    """[2, n] pairs i < j of one block of rows and those of the found neighbors [n, k] that are near enough."""
    near = found[first : first + _BLOCK]
    similarity = np.einsum("nd,nkd->nk", unit[first : first + len(near)], unit[near])
    at, column = np.nonzero(similarity >= 1 - threshold - _margin(rows))
    i, j = at + first, near[at, column]
    keep = _decided(similarity[at, column], threshold, _margin(rows), lambda part: (rows[i[part]], rows[j[part]]))
    return np.sort(np.stack([i, j])[:, keep], axis=0)


def around(rows: np.ndarray, some: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All ordered pairs (i, j), i != j, with i among `some` rows [n] and a distance <= threshold, as in `links`."""
    left = cosine.unit(rows[some])
    for first in range(0, len(rows), _BLOCK):
        i, j = _near(left, cosine.unit(rows[first : first + _BLOCK]), threshold)
        other = some[i] != j + first
        yield some[i[other]], j[other] + first


def links(rows: np.ndarray, threshold: float, half_width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs i < j <= i + half_width of rows [N, d] with cosine distance <= threshold, tile by tile.

    The product is formed in float32. Pairs whose distance is within its rounding error of the threshold are
    decided again in float64: the result is that of float64 at the speed of float32, O(N half_width d).
    """
    count = len(rows)
    for first in range(0, count, _BLOCK):
        left = cosine.unit(rows[first : first + _BLOCK])
        end = min(first + len(left) + half_width, count)
        for second in range(first, end, _BLOCK):
            right = left if second == first else cosine.unit(rows[second : min(second + _BLOCK, end)])
            i, j = _near(left, right, threshold)
            apart = (j + second) - (i + first)
            inside = (apart > 0) & (apart <= half_width)
            if inside.any():
                yield i[inside] + first, j[inside] + second


def nearest(rows: np.ndarray, k: int, exact: int = EXACT) -> np.ndarray:
    """The k nearest others of every row, nearest first.

    Exact up to `exact` rows, and where ScaNN cannot be imported; above, approximate with ScaNN. The log says which.

    Args:
      rows: [n, d] float32 (float64 where all are compared) of unit length.
      k: how many, 1 .. n-1.
      exact: rows up to which all pairs are compared.

    Returns:
      [n, k] int64, int32 from ScaNN.
    """
    if len(rows) > exact:
        try:
            import scann
        except ImportError:
            _LOG.warning("no ScaNN here: comparing all pairs of %d rows, which takes time", len(rows))
        else:
            _LOG.info("ScaNN finds the %d nearest of %d rows", k, len(rows))
            return _scann(scann, rows, k)
    return _all_pairs(rows, k)


def with_self(near: np.ndarray) -> np.ndarray:
    """[n, 1 + k] neighbors with every row itself in front, from the nearest others [n, k]."""
    return np.concatenate([np.arange(len(near), dtype=near.dtype)[:, None], near], axis=1)


def _all_pairs(rows: np.ndarray, k: int) -> np.ndarray:
    """Compares all rows, each pair once: a tile of products serves its rows and its columns."""
    best = Best(len(rows), k, rows.dtype)
    starts = range(0, len(rows), _TILE)
    for first in starts:
        own = rows[first : first + _TILE]
        tile, kept = own @ own.T, min(k, len(own) - 1)
        np.fill_diagonal(tile, -np.inf)
        column = np.argpartition(-tile, max(kept - 1, 0), axis=1)[:, :kept].ravel()
        row = np.repeat(np.arange(len(own)), kept)
        best.add(row + first, column + first, -tile[row, column])
    for first, second in itertools.combinations(starts, 2):
        tile = rows[first : first + _TILE] @ rows[second : second + _TILE].T
        least = -best.distance[:, -1]
        either = np.minimum(least[first : first + _TILE, None], least[second : second + _TILE])
        row, column = np.divmod(np.flatnonzero(tile > either), tile.shape[1])
        distance = -tile[row, column]
        for one, other in ((row + first, column + second), (column + second, row + first)):
            nearer = distance < best.distance[one, -1]  # of equally near ones those that came first stay
            best.add(one[nearer], other[nearer], distance[nearer])
    return best.index


def approximate(scann: Any, rows: np.ndarray, k: int) -> Any:
    """ScaNN's searcher of the k nearest of unit rows [n, d] float32.

    Leaves of about 250 rows, of which three times their square root are searched, the best 4k exactly. The codes are
    learned from a part of the rows: from 100,000 of 2,048 numbers that takes longer and finds no more neighbors.
    """
    leaves = max(len(rows) // 250, 1)
    searched = max(round(3 * math.sqrt(leaves)), 20)
    builder = scann.scann_ops_pybind.builder(rows, k, "dot_product")
    builder = builder.tree(leaves, searched, training_sample_size=min(len(rows), 100_000))
    codes = builder.score_ah(2, anisotropic_quantization_threshold=0.2, training_sample_size=min(len(rows), 20_000))
    return codes.reorder(4 * k).build()


def _scann(scann: Any, rows: np.ndarray, k: int) -> np.ndarray:
    """The k nearest of every row; where one index of all rows would be too large, of several, one after another."""
    count = len(rows)
    bounds = np.linspace(0, count, math.ceil(rows.nbytes / _INDEX) + 1).round().astype(int).tolist()
    best, product = np.empty((count, k + 1), np.int32), np.full((count, k + 1), -np.inf, np.float32)
    for first, end in itertools.pairwise(bounds):
        searcher = approximate(scann, rows[first:end], k + 1)
        room.let_go(rows)
        for start in progress(range(0, count, _PIECE), "nearest neighbors"):
            piece = slice(start, start + _PIECE)
            found, of_found = searcher.search_batched_parallel(rows[piece])
            best[piece], product[piece] = _largest(best[piece], product[piece], found + first, of_found)
        del searcher  # else it stays while the next one is built
        room.let_go(rows)
    for start in range(0, count, _PIECE):
        piece = slice(start, start + _PIECE)
        best[piece, :k] = _without_self(best[piece], k, start)
    return best[:, :k]


def _largest(
    known: np.ndarray, product: np.ndarray, found: np.ndarray, of_found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The [n, k] largest of two lists of neighbors and their products, largest first."""
    others, products = (np.concatenate(pair, axis=1) for pair in ((known, found), (product, of_found)))
    order = np.argsort(-products, axis=1, kind="stable")[:, : known.shape[1]]
    return np.take_along_axis(others, order, axis=1), np.take_along_axis(products, order, axis=1)


def _without_self(found: np.ndarray, k: int, first: int) -> np.ndarray:
    """Drops each row, from `first` on, from its own neighbors [n, k + 1]; where it is not among them, the last."""
    own = found == np.arange(first, first + len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    return found[~own].reshape(len(found), k)


def _near(left: np.ndarray, right: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs of unit rows with distance <= threshold."""
    similarity = left.astype(np.float32) @ right.astype(np.float32).T
    margin = _margin(left)
    i, j = np.nonzero(similarity >= 1 - threshold - margin)
    keep = _decided(similarity[i, j], threshold, margin, lambda part: (left[i[part]], right[j[part]]))
    return i[keep], j[keep]


def _margin(rows: np.ndarray) -> float:
    """Worst rounding error of a float32 dot product of unit vectors."""
    return (rows.shape[1] + 8) * 2.0**-24


def _decided(similarity: np.ndarray, threshold: float, margin: float, pairs: Callable) -> np.ndarray:
    """[n] bool: distance <= threshold, from float32 similarities [n]; `pairs` gives rows where float64 must decide."""
    keep = np.ones(len(similarity), bool)
    unsure = np.flatnonzero(similarity <= 1 - threshold + margin)
    for part in np.array_split(unsure, len(unsure) // _BLOCK + 1):
        left, right = (cosine.unit(rows) for rows in pairs(part))
        keep[part] = cosine.distance(np.einsum("nd,nd->n", left, right)) <= threshold
    return keep


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
    return numbered(labels)


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

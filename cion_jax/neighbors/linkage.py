"""Agglomerative clustering on sparse similarities that no forbidden pair survives, not even through a chain.

Groups that are each other's most similar merge, all such pairs at once, until nothing is similar enough. For linkages
whose similarities never rise by merging (average and single linkage, with or without forbidden pairs) that is the
tree that merging one pair at a time gives, in a few dozen passes over arrays (Sumengen et al., 2021).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp

from cion_jax.neighbors import cosine

Pairs = tuple[np.ndarray, np.ndarray]
"""Two [n] arrays of node numbers, i < j: int64, or int32 where there are very many."""

_BLOCK = 2**22  # pairs looked at at a time
_NONE = np.zeros(0, np.int64)
NO_PAIRS: Pairs = (_NONE, _NONE)


def average(weight: np.ndarray, pairs: Pairs, similarity: np.ndarray, threshold: float, cannot: Pairs) -> np.ndarray:
    """Average linkage: a merge needs a mean similarity >= threshold between all members of the two groups.

    So one link, however strong, does not join two groups that are otherwise strangers.

    Args:
      weight: [count] of every node, its share in the mean.
      pairs: of distinct nodes, none of them twice; pairs that are not listed have similarity 0.
      similarity: [n] of the pairs; sums are formed in its precision, float64 or float32.
      threshold: a positive similarity.
      cannot: pairs that must not end in one group.

    Returns:
      [count] int64 groups, numbered by their first node.
    """
    weight = weight.astype(similarity.dtype)
    total = similarity * weight[pairs[0]]
    total *= weight[pairs[1]]
    return _agglomerate(pairs, total, threshold, cannot, weight, np.add)


def single(count: int, pairs: Pairs, similarity: np.ndarray, threshold: float, cannot: Pairs) -> np.ndarray:
    """Single linkage: one similarity >= threshold joins two groups unless a forbidden pair would meet.

    The more similar pair goes first. Without forbidden pairs these are the connected components. Arguments and
    result are those of `average`.
    """
    return _agglomerate(pairs, similarity.astype(np.float64), threshold, cannot, np.ones(count), np.maximum)


def between(group: np.ndarray, pairs: Pairs) -> Pairs:
    """Distinct pairs i < j of groups that pairs of their members lie in; `group` [n] has -1 for none."""
    ends = np.sort(group[np.stack(pairs)], axis=0)
    i, j = np.unique(ends[:, (ends[0] >= 0) & (ends[0] < ends[1])], axis=1)
    return i, j


def _agglomerate(
    pairs: Pairs, total: np.ndarray, threshold: float, cannot: Pairs, weight: np.ndarray, combine: np.ufunc
) -> np.ndarray:
    (i, j), label = pairs, np.arange(len(weight))
    cannot = _ordered(*cannot)
    while True:
        count = len(weight)
        near, mean = _allowed((i, j), total, threshold, cannot, weight, combine)
        first, second = _mutual(count, i[near], j[near], mean)
        if not len(first):
            return label.astype(np.int64)
        going = np.zeros(count, bool)
        going[i[near]] = going[j[near]] = True
        kept = going[i] & going[j]
        i, j, total = i[kept], j[kept], total[kept]
        number = _merged(count, first, second)
        label, weight = number[label], np.bincount(number, weight).astype(weight.dtype)
        i, j = number[i], number[j]
        (i, j), total = combined(_ordered(i, j), total, len(weight), combine)
        cannot, _ = combined(_ordered(*(number[end] for end in cannot)), np.ones(len(cannot[0])), len(weight), combine)


def _allowed(
    pairs: Pairs, total: np.ndarray, threshold: float, cannot: Pairs, weight: np.ndarray, combine: np.ufunc
) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs may merge now, and how similar they are.

    Merging makes nothing more similar to a third, so a node in none of them is done with, and so are its pairs.
    """
    near, means, count = [], [], len(weight)
    forbidden = np.unique(_keys(cannot, count))
    for start in range(0, len(total), _BLOCK):
        i, j, mean = (x[start : start + _BLOCK] for x in (*pairs, total))
        mean = mean / (weight[i] * weight[j]) if combine is np.add else mean
        mean = np.round(mean, cosine.DECIMALS)
        found = np.flatnonzero(mean >= threshold)
        if len(forbidden):
            found = found[~_among(forbidden, _keys((i[found], j[found]), count))]
        near.append((found + start).astype(sp.get_index_dtype(maxval=len(total))))
        means.append(mean[found])
    return np.concatenate(near) if near else _NONE, np.concatenate([total[:0], *means])


def _among(ordered: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Whether the asked numbers are among ordered ones."""
    at = np.searchsorted(ordered, asked)
    return ordered[np.minimum(at, len(ordered) - 1)] == asked


def _keys(pairs: Pairs, count: int) -> np.ndarray:
    return pairs[0].astype(np.int64) * count + pairs[1]


def _mutual(count: int, i: np.ndarray, j: np.ndarray, value: np.ndarray) -> Pairs:
    """Pairs of nodes that are each other's nearest; of equally near ones the first counts."""
    most, nearest = np.full(count, -np.inf, value.dtype), np.full(count, count)
    for ends in (i, j):
        np.maximum.at(most, ends, value)
    for a, b in ((i, j), (j, i)):
        best = value == most[a]
        np.minimum.at(nearest, a[best], b[best])
    first = np.flatnonzero(nearest < count)
    first = first[(nearest[nearest[first]] == first) & (first < nearest[first])]
    return first, nearest[first]


def _merged(count: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """New numbers of all nodes, [count], after every j joined its i < j."""
    kept = np.ones(count, bool)
    kept[j] = False
    number = np.cumsum(kept) - 1
    number[j] = number[i]
    return number.astype(sp.get_index_dtype(maxval=count))


def _ordered(i: np.ndarray, j: np.ndarray) -> Pairs:
    return np.minimum(i, j), np.maximum(i, j)


def combined(pairs: Pairs, values: np.ndarray, count: int, combine: Callable) -> tuple[Pairs, np.ndarray]:
    """Pairs within one group dropped, equal pairs made one, in order; takes little more memory than what comes in."""
    apart = pairs[0] != pairs[1]
    if not apart.all():
        pairs, values = (pairs[0][apart], pairs[1][apart]), values[apart]
    listed = sp.coo_array((values, pairs), shape=(count, count))
    listed.has_canonical_format = True  # so that equal pairs stay apart: they are combined below
    table = listed.tocsr()
    del listed, apart
    table.sort_indices()
    i, j, values = (
        np.repeat(np.arange(count, dtype=table.indices.dtype), np.diff(table.indptr)),
        table.indices,
        table.data,
    )
    end = 0
    for first, last in _whole_rows(table.indptr):  # results are written over what was read before them
        own, other = i[first:last], j[first:last]
        new = np.flatnonzero(np.append(True, (own[1:] != own[:-1]) | (other[1:] != other[:-1])))
        merged = combine.reduceat(values[first:last], new)  # type: ignore[attr-defined]
        part = slice(end, end + len(new))
        i[part], j[part], values[part] = own[new], other[new], merged
        end += len(new)
    return (i[:end], j[:end]), values[:end]


def _whole_rows(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Bounds of pieces of about `_BLOCK` entries that hold whole rows; no piece is empty."""
    bounds = np.searchsorted(starts, np.arange(0, int(starts[-1]) + _BLOCK, _BLOCK))
    ends = np.unique(starts[np.minimum(bounds, len(starts) - 1)]).tolist()
    return itertools.pairwise(ends)

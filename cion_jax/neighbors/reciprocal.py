"""How much of their neighborhoods two rows share: k-reciprocal neighbors, on sparse lists.

Every row becomes a distribution over the rows that it knows *and that know it* (Zhong et al., 2017: reciprocal
neighbors, enlarged by those of its neighbors that agree, and averaged over the nearest few). Two such distributions
are compared by their Bhattacharyya coefficient: close to the Jaccard overlap in what it finds, and one sparse product.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from cion_jax.neighbors import search
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs

K1 = 20  # neighbors that may be reciprocal; not more than the square root of the number of rows
K2 = 6  # rows that a distribution is averaged over, its own included
AGREE = 2 / 3  # of a neighbor's own neighbors must be shared before they are taken in
LEAST = 0.05  # smaller overlaps count as none
_BLOCK = 4096  # rows of one product


def overlaps(rows: np.ndarray) -> tuple[Pairs, np.ndarray]:
    """All pairs i < j that share at least `LEAST` of their neighborhoods.

    Args:
      rows: [n, d] float32 of unit length.

    Returns:
      The pairs, and their overlap, float64 in `LEAST` .. 1. It is made of ranks, so its scale is about the same for
      any extractor.
    """
    if len(rows) < 3:
        return NO_PAIRS, np.zeros(0)
    root = np.sqrt(distributions(rows, search.nearest(rows, min(K1, math.ceil(math.sqrt(len(rows)))))))
    other = root.T.tocsr()
    pieces = []
    for start in range(0, len(rows), _BLOCK):
        found = (root[start : start + _BLOCK] @ other).tocoo()
        i, j = found.row.astype(np.int64) + start, found.col.astype(np.int64)
        keep = (i < j) & (found.data >= LEAST)
        pieces.append((i[keep], j[keep], np.minimum(found.data[keep], 1)))
    i, j, overlap = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    return (i, j), overlap


def distributions(rows: np.ndarray, nearest: np.ndarray) -> sp.csr_array:
    """What every row knows and is known by: [n, n] float64, rows sum to 1, from the nearest others [n, k]."""
    known = np.concatenate([np.arange(len(rows))[:, None], nearest], axis=1)
    weights = neighborhoods(known).tocoo()
    weights.data = np.exp(2 * _cosines(rows, weights.row, weights.col) - 2)
    weights = weights.tocsr()
    smooth = _indicator(known[:, :K2])
    smooth = sp.diags_array(1 / smooth.sum(axis=1)) @ smooth
    return smooth @ (sp.diags_array(1 / weights.sum(axis=1)) @ weights)


def neighborhoods(known: np.ndarray, agree: Callable = np.greater_equal) -> sp.csr_array:
    """Reciprocal neighbors, enlarged by those of their own closer ones that agree (Zhong et al., equations 1 and 2).

    Args:
      known: [n, k + 1] what every row knows, itself included; of that the nearest k / 2 and itself are its closer ones.
      agree: compares how many of the closer ones are shared with `AGREE` of their number; the paper's is `np.greater`.

    Returns:
      [n, n], positive where the column belongs to the row's neighborhood.
    """
    reciprocal, close = _reciprocal(known), _reciprocal(known[:, : round((known.shape[1] - 1) / 2) + 1])
    shared = ((reciprocal @ close.T) * reciprocal).tocoo()
    agrees = agree(shared.data, AGREE * close.sum(axis=1)[shared.col])
    taken_in = sp.csr_array((shared.data[agrees], (shared.row[agrees], shared.col[agrees])), shape=reciprocal.shape)
    return (reciprocal + taken_in @ close).tocsr()


def _reciprocal(known: np.ndarray) -> sp.csr_array:
    knows = _indicator(known)
    return (knows * knows.T).tocsr()


def _indicator(known: np.ndarray) -> sp.csr_array:
    count, width = known.shape
    starts = np.arange(count + 1) * width
    return sp.csr_array((np.ones(known.size), known.ravel(), starts), shape=(count, count))


def _cosines(rows: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    parts = [slice(start, start + 2**16) for start in range(0, len(i), 2**16)]
    found = [np.einsum("nd,nd->n", rows[i[part]], rows[j[part]]) for part in parts]
    return np.concatenate([np.zeros(0), *found])

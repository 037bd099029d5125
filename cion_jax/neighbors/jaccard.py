"""The Jaccard distance of k-reciprocal neighborhoods, sparse: what Cluster Contrast clusters by.

Dai et al., Cluster Contrast for Unsupervised Person Re-identification, 2021; the distance is that of Zhong et al., 2017
(equation 10), without the base distance that re-ranking mixes in.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp

from cion_jax.common.progress import progress
from cion_jax.neighbors import reciprocal, search

_BLOCK = 512  # rows of one product
_TERMS = 2**20  # numbers of two rows that are compared at a time
_ROUNDING = 1e-6  # of the bound


def distances(
    rows: np.ndarray, k1: int = 30, k2: int = 6, *, largest: float = 1.0, exact: int = search.EXACT
) -> sp.csr_array:
    """Jaccard distances of all rows, except those that are 1.

    Exactly `k1` neighbors are searched, the row itself among them; half sets are the first round(k1 / 2) + 1, and are
    taken in where more than 2/3 of them lie in the set (`reciprocal.expanded`, strict). For the released distance to
    1e-12 give float64 rows; float32 costs 1e-6 and half the memory.

    Args:
      rows: [n, d] of unit length, n > k1.
      k1: neighbors, the row itself counted.
      k2: rows that a neighborhood is averaged over (query expansion), its own included, 1 .. k1.
      largest: distances above it are left out.
      exact: rows up to which neighbors are found by comparing all, see `search.nearest`.

    Returns:
      [n, n] float64 in 0 .. `largest`, symmetric up to rounding. A pair that is not stored is further apart; zeros are
      stored.

    Raises:
      ValueError: not more than k1 rows, or k2 beyond k1.
    """
    if len(rows) <= k1 or not 1 <= k2 <= k1:
        raise ValueError(f"got {len(rows)} rows, k1 = {k1}, k2 = {k2}; expected more than k1 rows, and k2 in 1 .. k1")
    near = search.with_self(search.nearest(rows, k1 - 1, exact))
    return between(reciprocal.distributions(rows, near, round(k1 / 2) + 1, k2, strict=True), largest)


def between(known: sp.csr_array, largest: float = 1.0) -> sp.csr_array:
    """The same from distributions [n, n], rows of which sum to 1: 1 - s / (2 - s), s what two rows have in common.

    The smaller of two numbers is at most the root of their product, so the product of the roots, one sparse product,
    bounds s from above; what two rows have in common is added up for those alone that may be near enough.
    """
    known = known.sorted_indices()
    root = known.copy()
    np.sqrt(root.data, out=root.data)
    other, starts = root.T.tocsr(), range(0, known.shape[0], _BLOCK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # SciPy works without holding Python
        found = pool.map(lambda start: _near(known, root[start : start + _BLOCK] @ other, start, largest), starts)
        pieces = list(progress(found, "Jaccard distances", total=len(starts)))
    i, j, apart = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    off = i != j
    both = np.concatenate([i, j[off]]), np.concatenate([j, i[off]])
    return sp.coo_array((np.concatenate([apart, apart[off]]), both), shape=known.shape).tocsr()


def _near(
    known: sp.csr_array, bound: sp.csr_array, start: int, largest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs i <= j of rows within `largest`, and how far they are; `bound` has the rows from `start` on."""
    pairs, least = bound.tocoo(), 2 * (1 - largest) / (2 - largest)
    i, j = pairs.row + start, pairs.col
    may = (j >= i) & (pairs.data >= least - _ROUNDING)
    i, j = i[may], j[may]
    step = max(_TERMS * known.shape[0] // max(known.nnz, 1), 1)
    shared = [
        np.asarray(known[i[at : at + step]].minimum(known[j[at : at + step]]).sum(axis=1))
        for at in range(0, len(i), step)
    ]
    common = np.concatenate([np.zeros(0), *shared])
    apart = np.maximum(1 - common / (2 - common), 0)
    keep = (apart <= largest) & (apart < 1)
    return i[keep], j[keep], apart[keep]

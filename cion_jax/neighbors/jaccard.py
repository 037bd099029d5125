"""The Jaccard distance of k-reciprocal neighborhoods, sparse: what Cluster Contrast clusters by.

Dai et al., Cluster Contrast for Unsupervised Person Re-identification, 2021; the distance is that of Zhong et al., 2017
(equation 10), without the base distance that re-ranking mixes in.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from cion_jax.common.progress import progress
from cion_jax.neighbors import reciprocal, search

_BLOCK = 256  # rows of the progress line


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
    """The same from distributions [n, n], rows of which sum to 1: 1 - s / (2 - s), s what two rows have in common."""
    starts, columns, values = [0], [], []
    for found, apart in _by_row(known, largest):
        starts.append(starts[-1] + len(found))
        columns.append(found)
        values.append(apart)
    return sp.csr_array((np.concatenate(values), np.concatenate(columns), starts), shape=known.shape)


def _by_row(known: sp.csr_array, largest: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every row of distributions [n, n] the rows within `largest`, in rising order, and how far they are."""
    count = known.shape[0]
    by_column = known.T.tocsr()
    first, size = by_column.indptr[:-1].astype(np.int64), np.diff(by_column.indptr)
    for block in progress(range(0, count, _BLOCK), "Jaccard distances"):
        for row in range(block, min(block + _BLOCK, count)):
            own = slice(known.indptr[row], known.indptr[row + 1])
            members, times = known.indices[own], size[known.indices[own]]
            at = np.arange(times.sum()) + np.repeat(first[members] - np.cumsum(times) + times, times)
            least = np.minimum(np.repeat(known.data[own], times), by_column.data[at])
            shared = np.bincount(by_column.indices[at], weights=least, minlength=count)
            others = np.flatnonzero(shared)
            apart = np.maximum(1 - shared[others] / (2 - shared[others]), 0)
            keep = (apart <= largest) & (apart < 1)
            yield others[keep], apart[keep]

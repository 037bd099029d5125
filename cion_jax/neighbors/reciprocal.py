"""k-reciprocal neighbors on sparse lists: the sets, what two rows share of them, and the Jaccard distance.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. Denoising and pseudo labels
stand on `expanded` and differ in what they do with the sets. A list of neighbors [n, k] is int64, nearest first, with
the row itself in front.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cion_jax.neighbors.linkage import NO_PAIRS, Pairs

AGREEMENT = 2 / 3
"""Share of a half set that the large set must hold before it takes the half set in (equation 4)."""

_BLOCK = 4096  # rows of one product


def k_reciprocal(near: np.ndarray) -> sp.csr_array:
    """[n, n] float64 with a one where row and column are among each other's neighbors `near` [n, k] (equation 3)."""
    knows = _indicator(near)
    return (knows * knows.T).tocsr()


def expanded(near: np.ndarray, half: int, *, strict: bool, agreement: float = AGREEMENT) -> sp.csr_array:
    """k-reciprocal sets, each enlarged by the half sets of its members that agree with it (equation 4).

    A half set agrees where the set, not yet enlarged, holds the share `agreement` of it. The paper writes "at least"
    (>=, `strict=False`); the code that was released with it, and re-ranking and Cluster Contrast after it, ask for
    more (>, `strict=True`). They differ where a half set's size is a multiple of 3.

    Args:
      near: [n, k] neighbors.
      half: how many of them make the half sets, the row itself counted; the released code takes round(k1 / 2) + 1.
      strict: see above.
      agreement: share of a half set, 0 .. 1.

    Returns:
      [n, n] float64, not zero where the column belongs to the row's set; the values have no meaning.
    """
    large, small = k_reciprocal(near), k_reciprocal(near[:, :half])
    needed, others = agreement * small.sum(axis=1), small.T.tocsr()
    rows, columns = [], []
    for start in range(0, len(near), _BLOCK):
        own = large[start : start + _BLOCK]
        shared = ((own @ others) * own).tocoo()  # [i, c]: how many of c's half set are in i's large one
        joins = shared.data > needed[shared.col] if strict else shared.data >= needed[shared.col]
        rows.append(shared.row[joins].astype(np.int64) + start)
        columns.append(shared.col[joins].astype(np.int64))
    row, column = np.concatenate(rows), np.concatenate(columns)
    joining = sp.csr_array((np.ones(len(row)), (row, column)), shape=large.shape)
    return (large + joining @ small).tocsr()


def distributions(
    rows: np.ndarray, near: np.ndarray, half: int, k2: int, *, strict: bool, agreement: float = AGREEMENT
) -> sp.csr_array:
    """What every row knows and is known by, as a distribution over all rows.

    Weights within a row's expanded set are the softmax of minus the squared euclidean distances (equation 7); they are
    averaged over the row's nearest `k2`, its own included (equation 11).

    Args:
      rows: [n, d] of unit length; products are formed in their precision.
      near: [n, k] neighbors.
      half, strict, agreement: see `expanded`.
      k2: 1 .. k.

    Returns:
      [n, n] float64; every row sums to 1.
    """
    weights = expanded(near, half, strict=strict, agreement=agreement).tocoo()
    weights.data = np.exp(2 * _cosines(rows, weights.row, weights.col) - 2)
    weights = weights.tocsr()
    smooth = _indicator(near[:, :k2])
    smooth = sp.diags_array(1 / smooth.sum(axis=1)) @ smooth
    return smooth @ (sp.diags_array(1 / weights.sum(axis=1)) @ weights)


def overlaps(rows: np.ndarray, near: np.ndarray, k2: int, agreement: float, least: float) -> tuple[Pairs, np.ndarray]:
    """All pairs i < j whose neighborhoods overlap: the Bhattacharyya coefficient of their `distributions`.

    It is close to the Jaccard overlap in what it finds, and one sparse product. It is made of ranks, so its scale is
    about the same for any feature extractor. Half sets agree as the paper writes it (>=).

    Args:
      rows: [n, d] float32 of unit length.
      near: [n, 1 + k] neighbors that may be reciprocal, with the row itself in front.
      k2, agreement: see `distributions`; at most 1 + k of k2 are taken.
      least: 0 .. 1; smaller overlaps count as none.

    Returns:
      The pairs, and their overlap, float64 in `least` .. 1.
    """
    if len(rows) < 3:
        return NO_PAIRS, np.zeros(0)
    half = round((near.shape[1] - 1) / 2) + 1
    root = np.sqrt(distributions(rows, near, half, min(k2, near.shape[1]), strict=False, agreement=agreement))
    other = root.T.tocsr()
    pieces = []
    for start in range(0, len(rows), _BLOCK):
        found = (root[start : start + _BLOCK] @ other).tocoo()
        i, j = found.row.astype(np.int64) + start, found.col.astype(np.int64)
        keep = (i < j) & (found.data >= least)
        pieces.append((i[keep], j[keep], np.minimum(found.data[keep], 1)))
    i, j, overlap = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    return (i, j), overlap


def _indicator(near: np.ndarray) -> sp.csr_array:
    count, width = near.shape
    starts = np.arange(count + 1) * width
    return sp.csr_array((np.ones(near.size), near.ravel(), starts), shape=(count, count))


def _cosines(rows: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    step = max(2**25 // rows.shape[1], 1)  # 128 MB of float32 rows at a time
    some = [slice(start, start + step) for start in range(0, len(i), step)]
    found = [np.einsum("nd,nd->n", rows[i[part]], rows[j[part]]) for part in some]
    return np.concatenate([np.zeros(0), *found])

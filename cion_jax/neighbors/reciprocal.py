"""k-reciprocal neighbors on sparse lists: the sets, what two rows share of them, and the Jaccard distance.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. Denoising and pseudo labels
stand on `expanded` and differ in what they do with the sets. A list of neighbors [n, k] has whole numbers, nearest
first, with the row itself in front.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cion_jax.common import room, threads
from cion_jax.common.progress import progress
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs

AGREEMENT = 2 / 3
"""Share of a half set that the large set must hold before it takes the half set in (equation 4)."""

_BLOCK = 4096  # rows of one product
_ROUNDED = 1 - 1e-6  # an overlap may differ by so much, seen from its two ends


def k_reciprocal(near: np.ndarray) -> sp.csr_array:
    """[n, n] float32 with a one where row and column are among each other's neighbors `near` [n, k] (equation 3)."""
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
      [n, n] float32, not zero where the column belongs to the row's set; the values have no meaning.
    """
    large, small = k_reciprocal(near), k_reciprocal(near[:, :half])
    needed, others = agreement * small.sum(axis=1, dtype=np.float64), small.T.tocsr()

    def block(start: int) -> sp.csr_array:
        own = large[start : start + _BLOCK]
        shared = ((own @ others) * own).tocsr()  # [i, c]: how many of c's half set are in i's large one
        joins = shared.data > needed[shared.indices] if strict else shared.data >= needed[shared.indices]
        shared.data = joins.astype(np.float32)
        shared.eliminate_zeros()
        return (own + shared @ small).tocsr()

    return sp.vstack(list(threads.ahead(block, range(0, len(near), _BLOCK))), format="csr")


def distributions(
    rows: np.ndarray,
    near: np.ndarray,
    half: int,
    k2: int,
    *,
    strict: bool,
    agreement: float = AGREEMENT,
    dtype: type[np.floating] = np.float64,
) -> sp.csr_array:
    """What every row knows and is known by, as a distribution over all rows.

    Weights within a row's expanded set are the softmax of minus the squared euclidean distances (equation 7); they are
    averaged over the row's nearest `k2`, its own included (equation 11).

    Args:
      rows: [n, d] of unit length; products are formed in their precision.
      near: [n, k] neighbors.
      half, strict, agreement: see `expanded`.
      k2: 1 .. k.
      dtype: of the weights.

    Returns:
      [n, n] of `dtype`; every row sums to 1.
    """
    weights = expanded(near, half, strict=strict, agreement=agreement)
    weights.data = _weights(rows, weights, dtype)
    size = np.diff(weights.indptr)
    weights.data *= np.repeat((1 / weights.sum(axis=1)).astype(dtype), size)
    smooth = _indicator(near[:, :k2], dtype)
    smooth.data /= min(k2, near.shape[1])
    return smooth @ weights


def overlaps(
    rows: np.ndarray,
    near: np.ndarray,
    k2: int,
    agreement: float,
    least: float,
    most: int | None = None,
    dtype: type[np.floating] = np.float64,
) -> tuple[Pairs, np.ndarray]:
    """All pairs i < j whose neighborhoods overlap: the Bhattacharyya coefficient of their `distributions`.

    It is close to the Jaccard overlap in what it finds, and one sparse product. It is made of ranks, so its scale is
    about the same for any feature extractor. Half sets agree as the paper writes it (>=).

    Args:
      rows: [n, d] float32 of unit length.
      near: [n, 1 + k] neighbors that may be reciprocal, with the row itself in front.
      k2, agreement: see `distributions`; at most 1 + k of k2 are taken.
      least: 0 .. 1; smaller overlaps count as none.
      most: a pair is kept where it is among so many largest of one of its ends; None: wherever it is.
      dtype: of weights and overlaps; float32 takes half the memory and changes the seventh digit.

    Returns:
      The pairs (int32), and their overlap in `least` .. 1.
    """
    if len(rows) < 3:
        return NO_PAIRS, np.zeros(0)
    half = round((near.shape[1] - 1) / 2) + 1
    known = distributions(rows, near, half, k2, strict=False, agreement=agreement, dtype=dtype)
    room.let_go(rows)
    pieces = _shared(known, least, most)
    del known
    i, j, overlap = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    return (i, j), overlap


def _shared(known: sp.csr_array, least: float, most: int | None) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs i < j and overlaps of distributions, which become their roots, block by block."""
    root = known
    np.sqrt(root.data, out=root.data)
    other, pieces = root.T.tocsr(), []
    limit, starts = np.full(root.shape[0], least, root.dtype), range(0, root.shape[0], _BLOCK)
    blocks = threads.ahead(lambda start: _above(root[start : start + _BLOCK] @ other, start, least), starts)
    for start, found in zip(starts if most is None else progress(starts, "shared neighbors"), blocks, strict=True):
        if most is not None:
            limit[start : start + _BLOCK] = np.maximum(least, _ROUNDED * _nth_largest(found, most))
        i, j = np.repeat(np.arange(found.shape[0], dtype=np.int32) + start, np.diff(found.indptr)), found.indices
        keep = (j < i) & (found.data >= np.minimum(limit[i], limit[j]))
        pieces.append((j[keep], i[keep], np.minimum(found.data[keep], 1)))
    return pieces


def _above(found: sp.csr_array, start: int, least: float) -> sp.csr_array:
    """Overlaps of rows from `start` on, without those below `least` and with themselves."""
    row = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    keep = (found.data >= least) & (found.indices != row + start)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row[keep], minlength=found.shape[0]))])
    return sp.csr_array((found.data[keep], found.indices[keep], starts), shape=found.shape)


def _nth_largest(found: sp.csr_array, nth: int) -> np.ndarray:
    """[rows] the value of that rank in every row, 0 where it has fewer."""
    size = np.diff(found.indptr)
    row = np.repeat(np.arange(len(size)), size)
    ordered = found.data[np.lexsort((-found.data, row))]
    return np.where(size >= nth, np.append(ordered, 0)[np.minimum(found.indptr[:-1] + nth - 1, len(ordered))], 0)


def _indicator(near: np.ndarray, dtype: type[np.floating] = np.float32) -> sp.csr_array:
    count, width = near.shape
    starts = np.arange(count + 1) * width
    return sp.csr_array((np.ones(near.size, dtype), near.ravel(), starts), shape=(count, count))


def _weights(rows: np.ndarray, members: sp.csr_array, dtype: type[np.floating]) -> np.ndarray:
    """[members] the softmax's numerators of all members of all rows."""
    result, step = np.empty(members.nnz, dtype), max(2**24 // rows.shape[1], 1)  # 64 MB of float32 rows at a time
    i = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(members.indptr))
    for start in range(0, members.nnz, step):
        part = slice(start, start + step)
        result[part] = np.einsum("nd,nd->n", rows[i[part]], rows[members.indices[part]])
    result *= 2
    result -= 2
    return np.exp(result, out=result)

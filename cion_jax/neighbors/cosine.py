"""Cosine distance, means of identities, and the one rule for ties.

Features come as float32; everything that decides is computed in float64. Distances are rounded to nine
decimals before they are compared, so that equal ones stay equal in whichever order their sums were formed.
Ties then go by time order: of equally bad images the latest leaves, of equally near tracklets the earliest
takes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import scipy.sparse

DECIMALS = 9
# Means shorter than this point nowhere: their images cancel out. They are at distance 1 from everything.
_NOWHERE = 1e-6

Labeled = Iterable[tuple[np.ndarray, np.ndarray]]
"""Pieces of a data set, iterated more than once: features [m, d] and their identities [m] int64, -1: none."""


def unit(rows: np.ndarray, dtype: npt.DTypeLike = np.float64, shortest: float = _NOWHERE) -> np.ndarray:
    """Scales rows [n, d] to length 1 (L2), computed and returned in `dtype`.

    Rows no longer than `shortest` become 0; rows whose length is not finite stay as they are.
    """
    rows = np.asarray(rows, dtype)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    kept = np.where(length <= shortest, 0, rows)
    return np.divide(rows, length, out=kept, where=(length > shortest) & np.isfinite(length))


def distance(similarity: np.ndarray) -> np.ndarray:
    """Cosine similarity -> cosine distance in 0 .. 2, rounded so that it can be compared."""
    return np.round(1 - similarity, DECIMALS)


def leave_one_out(similarity: np.ndarray, length2: float | np.ndarray, others: int) -> np.ndarray:
    """Distances of unit vectors x_i to the mean of the others, from sums over all.

    Args:
      similarity: [m], x_i . S with S the sum over all, x_i included.
      length2: S . S.
      others: how many vectors S has, x_i not counted.

    Returns:
      [m] cosine distance of x_i and S - x_i; 1 where the others cancel out.
    """
    rest2 = np.maximum(length2 - 2 * similarity + 1, 0)
    nowhere = rest2 <= (_NOWHERE * others) ** 2
    rest = np.sqrt(np.where(nowhere, 1, rest2))
    return distance(np.where(nowhere, 0, (similarity - 1) / rest))


def centroids(labeled: Labeled, count: int) -> np.ndarray:
    """Mean of the L2-normalized features of every identity.

    Args:
      labeled: the data set; labels in 0 .. count-1, images labeled -1 belong to none.
      count: number of identities.

    Returns:
      [count, d] float64 (d = 0 where there are no images); 0 for an identity without images.
    """
    total, images = None, np.zeros(count)
    for features, labels in labeled:
        total = np.zeros((count, features.shape[1])) if total is None else total
        found, local = np.unique(labels[labels >= 0], return_inverse=True)
        local_labels = np.full(len(labels), -1)
        local_labels[labels >= 0] = local
        total[found] += sums(unit(features), local_labels, len(found))
        images[found] += np.bincount(local, minlength=len(found))
    if total is None:
        return np.zeros((count, 0))
    return total / np.maximum(images, 1)[:, None]


def sums(x: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """[count, d] sums of the rows [m, d] of every label 0 .. count-1; rows labeled -1 belong to none."""
    inside = np.flatnonzero(labels >= 0)
    members = scipy.sparse.csr_array((np.ones(len(inside)), (labels[inside], inside)), shape=(count, len(labels)))
    return members @ x


def to_own_centroid(x: np.ndarray, labels: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Distance of every unit row [m, d] to the centroid of its own identity, [m]; nan for rows labeled -1."""
    similarity = np.einsum("md,md->m", x, unit(means)[labels])
    return np.where(labels >= 0, distance(similarity), np.nan)

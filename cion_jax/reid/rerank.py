"""Re-ranking with k-reciprocal encoding: Zhong et al., CVPR 2017, arXiv 1701.08398.

Two images are alike when their neighborhoods are. Every image is encoded as a sparse vector over all images,
in which only members of its reciprocal neighborhood are not zero, and the distances are mixed with the
Jaccard distance of these vectors. Neighborhoods are sparse matrices and distances are made a few rows at a
time, so that the memory grows with N k, not with N^2 or Q G.

Shape suffixes: Q queries, G gallery images, N = Q + G, D feature dimensions, K neighbors, B rows of a block.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from scipy import sparse

from cion_jax.neighbors import reciprocal
from cion_jax.reid.distances import Between, Distances, Given, ScoreError
from cion_jax.reid.nearest import neighbors

_KEPT = 2**30  # bytes of distances that are kept; larger ones are computed a second time
_LEAST = 1e-12  # largest squared distance that is divided by


class Reranked:
    """Distances that take the neighborhoods into account; a `distances.Distances`."""

    def __init__(
        self,
        query_QD: np.ndarray,
        gallery_GD: np.ndarray,
        metric: str = "cosine",
        *,
        k1: int = 20,
        k2: int = 6,
        weight: float = 0.3,
    ):
        """Finds and encodes all neighborhoods.

        Args:
          query_QD, gallery_GD: features.
          metric: "cosine" or "euclidean"; the base distance, which is squared and divided by its largest value in
            every row.
          k1: size of the neighborhoods.
          k2: how many nearest encodings are averaged (equation 11).
          weight: share of the base distance in the result (lambda in equation 12).

        Raises:
          ScoreError: fewer than k1 + 1 images, or features that `distances.Between` refuses.
        """
        self._base: Distances = Between(query_QD, gallery_GD, metric)
        self.shape = self._base.shape
        x_ND = np.concatenate([query_QD, gallery_GD])
        if len(x_ND) <= max(k1, k2):
            raise ScoreError(f"re-ranking needs more than {max(k1, k2)} images (k1 = {k1}), got {len(x_ND)}")
        everything = Between(x_ND, x_ND, metric)
        kept_QG = np.empty(self.shape, everything.dtype) if 4 * math.prod(self.shape) <= _KEPT else None
        found = neighbors(everything, max(k1 + 1, k2), None if kept_QG is None else partial(_keep, kept_QG))
        self._base = self._base if kept_QG is None else Given(kept_QG)
        farthest_N = np.maximum(found.farthest**2, _LEAST)
        members = reciprocal.expanded(found.index[:, : k1 + 1], round(k1 / 2) + 1, strict=True)
        weights = _encode(members, everything, farthest_N)
        encoded = _graph(found.index[:, :k2]) @ weights / k2
        self._query, self._gallery = encoded[: self.shape[0]], encoded[self.shape[0] :].tocsc()
        self._farthest_Q, self._weight = farthest_N[: self.shape[0]], weight

    def rows(self, which: slice) -> np.ndarray:
        """[B, G] float32."""
        result_BG = self._base.rows(which)
        for query, row_G in zip(range(*which.indices(self.shape[0])), result_BG, strict=True):
            base_G = row_G**2 * (self._weight / self._farthest_Q[query])
            row_G[:] = base_G + (1 - self._weight) * _jaccard(self._query[[query]], self._gallery)
        return result_BG.astype(np.float32, copy=False)


def _keep(kept_QG: np.ndarray, rows: slice, columns: slice, tile_BC: np.ndarray) -> None:
    """Copies what a tile of the distances of all images has of queries to the gallery."""
    queries = len(kept_QG)
    if rows.start < queries < columns.stop:
        first = max(queries - columns.start, 0)
        part = tile_BC[: queries - rows.start, first:]
        kept_QG[rows.start : rows.start + len(part), columns.start + first - queries : columns.stop - queries] = part


def _graph(near_NK: np.ndarray) -> sparse.csr_array:
    """[N, N] with a one wherever the column is among the row's neighbors."""
    n, k = near_NK.shape
    return sparse.csr_array((np.ones(n * k), near_NK.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def _encode(members: sparse.csr_array, distances: Between, farthest_N: np.ndarray) -> sparse.csr_array:
    """Members weighted by exp(-distance), rows summing to 1 (equation 7)."""
    weight = np.empty(members.nnz)
    for row, farthest in enumerate(farthest_N):
        here = slice(members.indptr[row], members.indptr[row + 1])
        distance = distances.tile(slice(row, row + 1), members.indices[here])[0]
        closeness = np.exp(-(distance**2) / farthest)
        weight[here] = closeness / closeness.sum()
    return sparse.csr_array((weight, members.indices, members.indptr), shape=members.shape)


def _jaccard(query: sparse.csr_array, gallery: sparse.csc_array) -> np.ndarray:
    """[G] Jaccard distances of one encoding to the gallery's (equation 10, with rows that sum to 1)."""
    start = gallery.indptr[query.indices]
    size = gallery.indptr[query.indices + 1] - start
    at = np.arange(size.sum()) + np.repeat(start - np.cumsum(size) + size, size)
    smaller = np.minimum(gallery.data[at], np.repeat(query.data, size))
    overlap = np.bincount(gallery.indices[at], weights=smaller, minlength=gallery.shape[0])
    return 1 - overlap / (2 - overlap)

"""Re-ranking with k-reciprocal encoding: Zhong et al., CVPR 2017, arXiv 1701.08398.

Two images are alike when their neighborhoods are. Every image is encoded as a sparse vector over all images,
in which only members of its reciprocal neighborhood are not zero, and the distances are mixed with the
Jaccard distance of these vectors. Neighborhoods are sparse matrices and distances are made a few rows at a
time, so that the memory grows with N k and Q G, not with N^2.

Shape suffixes: Q queries, G gallery images, N = Q + G, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from cion_jax.reid import metrics

_CHUNK = 256  # rows of distances that exist at a time


def rerank(
    query_QD: np.ndarray,
    gallery_GD: np.ndarray,
    metric: str = "cosine",
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> np.ndarray:
    """Distances that take the neighborhoods into account.

    Args:
      query_QD, gallery_GD: features.
      metric: "cosine" or "euclidean"; the base distance, which is squared and divided by its largest value in
        every row.
      k1: size of the neighborhoods.
      k2: how many nearest encodings are averaged (equation 11).
      weight: share of the base distance in the result (lambda in equation 12).

    Returns:
      [Q, G] float32.

    Raises:
      ScoreError: fewer than k1 + 1 images, or features that `metrics.distances` refuses.
    """
    x_ND = np.concatenate([query_QD, gallery_GD])
    if len(x_ND) <= max(k1, k2):
        raise metrics.ScoreError(f"re-ranking needs more than {max(k1, k2)} images (k1 = {k1}), got {len(x_ND)}")
    near = np.concatenate([metrics.nearest(row, k1 + 1) for _, row in _base(x_ND, x_ND, metric)])
    members = _expanded(near, k1)
    encoded = _graph(near[:, :k2]) @ _encode(members, x_ND, metric) / k2
    queries, gallery = encoded[: len(query_QD)], encoded[len(query_QD) :].tocsc()
    result = np.empty((len(query_QD), len(gallery_GD)), np.float32)
    for rows, base in _base(query_QD, x_ND, metric):
        jaccard = np.stack([_jaccard(queries[i : i + 1], gallery) for i in range(rows.start, rows.stop)])
        result[rows] = (1 - weight) * jaccard + weight * base[:, len(query_QD) :]
    return result


def _base(x_MD: np.ndarray, x_ND: np.ndarray, metric: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows, their squared distances to all images, scaled to a largest value of 1)."""
    for rows in metrics.slices(len(x_MD), _CHUNK):
        squared = metrics.distances(x_MD[rows], x_ND, metric) ** 2
        yield rows, squared / np.maximum(squared.max(1, keepdims=True), 1e-12)


def _graph(near_NK: np.ndarray) -> sparse.csr_array:
    """[N, N] with a one wherever the column is among the row's neighbors."""
    n, k = near_NK.shape
    return sparse.csr_array((np.ones(n * k), near_NK.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))


def _reciprocal(near_NK: np.ndarray) -> sparse.csr_array:
    """[N, N] with a one where row and column are among each other's neighbors (equation 1)."""
    forward = _graph(near_NK)
    return forward.multiply(forward.T).tocsr()


def _expanded(near_NK: np.ndarray, k1: int) -> sparse.csr_array:
    """Reciprocal neighborhoods, joined by their members' smaller ones that overlap by 2/3 (equation 2)."""
    large, small = _reciprocal(near_NK), _reciprocal(near_NK[:, : round(k1 / 2) + 1])
    shared = (large @ small.T).multiply(large).tocoo()  # [i, c]: how many of c's small one are in i's large one
    joins = shared.data > 2 / 3 * small.sum(1)[shared.col]
    joining = sparse.csr_array((np.ones(joins.sum()), (shared.row[joins], shared.col[joins])), shape=large.shape)
    return (large + joining @ small).tocsr()


def _encode(members: sparse.csr_array, x_ND: np.ndarray, metric: str) -> sparse.csr_array:
    """Members weighted by exp(-distance), rows summing to 1 (equation 7)."""
    row = np.repeat(np.arange(len(x_ND)), np.diff(members.indptr))
    weight = np.empty(members.nnz)
    for rows, base in _base(x_ND, x_ND, metric):
        here = slice(members.indptr[rows.start], members.indptr[rows.stop])
        weight[here] = np.exp(-base[row[here] - rows.start, members.indices[here]])
    weight /= np.bincount(row, weights=weight, minlength=len(x_ND))[row]
    return sparse.csr_array((weight, members.indices, members.indptr), shape=members.shape)


def _jaccard(query: sparse.csr_array, gallery: sparse.csc_array) -> np.ndarray:
    """[G] Jaccard distances of one encoding to the gallery's (equation 10, with rows that sum to 1)."""
    columns = gallery[:, query.indices]
    smaller = np.minimum(columns.data, np.repeat(query.data, np.diff(columns.indptr)))
    overlap = np.bincount(columns.indices, weights=smaller, minlength=gallery.shape[0])
    return 1 - overlap / (2 - overlap)

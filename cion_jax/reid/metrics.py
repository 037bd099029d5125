"""How well distances between queries and a gallery find the same person: mAP, mINP and CMC. NumPy only.

The protocol is Market-1501's: gallery images of the query's own identity *and* camera are taken out for that
query, and a query that has no match left is not counted. mINP is from Ye et al., "Deep Learning for Person
Re-identification: A Survey and Outlook", arXiv 2001.04193.

Shape suffixes: Q queries, G gallery images, N any images, D feature dimensions, R ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cion_jax.common.errors import UserError

METRICS = ("cosine", "euclidean")
_CHUNK = 256  # rows of a distance matrix that are worked on at a time


class ScoreError(UserError):
    """Features or labels that cannot be scored."""


@dataclass(frozen=True)
class Scores:
    """Result of `evaluate`.

    Attributes:
      ap: [valid queries] float64, average precision of every counted query, 0 to 1.
      inp: [valid queries] float64, inverse negative penalty: matches / rank of the last match.
      cmc: [R] float64, share of counted queries whose first match is among the first 1..R gallery images.
      valid: [valid queries] int64, which queries are counted.
    """

    ap: np.ndarray
    inp: np.ndarray
    cmc: np.ndarray
    valid: np.ndarray

    @property
    def mean_ap(self) -> float:
        """mAP, 0 to 1."""
        return float(self.ap.mean())

    @property
    def mean_inp(self) -> float:
        """mINP, 0 to 1."""
        return float(self.inp.mean())

    def rank(self, r: int) -> float:
        """Rank-r accuracy, 0 to 1."""
        return float(self.cmc[r - 1])


def normalize(x_ND: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1 (rows of zeros stay zero), in the dtype of the input."""
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)


def distances(x_ND: np.ndarray, y_GD: np.ndarray, metric: str = "cosine") -> np.ndarray:
    """Distances between all rows of two feature matrices.

    Args:
      x_ND: features; float32 stays float32.
      y_GD: features of the same width.
      metric: "cosine", 1 - cos, or "euclidean", sqrt(max(d^2, 1e-12)) of the features as they are.

    Returns:
      [N, G] distances.

    Raises:
      ScoreError: another metric, features of different widths, or features that are not finite.
    """
    if metric not in METRICS:
        raise ScoreError(f"there is no metric {metric!r}; expected one of {', '.join(METRICS)}")
    if x_ND.ndim != 2 or y_GD.ndim != 2 or x_ND.shape[1] != y_GD.shape[1]:
        raise ScoreError(f"expected two [n, d] matrices of one d, got {x_ND.shape} and {y_GD.shape}")
    if not (np.isfinite(x_ND).all() and np.isfinite(y_GD).all()):
        raise ScoreError("features must be finite, got NaN or infinity; look at the checkpoint that made them")
    if metric == "cosine":
        return 1 - normalize(x_ND) @ normalize(y_GD).T
    squared = (x_ND**2).sum(1)[:, None] + (y_GD**2).sum(1) - 2 * (x_ND @ y_GD.T)
    return np.sqrt(np.maximum(squared, 1e-12, out=squared), out=squared)


def nearest(distance_NG: np.ndarray, k: int) -> np.ndarray:
    """[N, k] int64: the k smallest of every row, in order; equal distances in column order."""
    some = np.sort(np.argpartition(distance_NG, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(np.take_along_axis(distance_NG, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def evaluate(
    distance_QG: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cams: np.ndarray,
    gallery_cams: np.ndarray,
    *,
    ranks: int = 50,
    chunk: int = _CHUNK,
) -> Scores:
    """Scores a distance matrix; average precision is the non-interpolated one.

    Equal distances are ranked in gallery order.

    Args:
      distance_QG: distances of any kind, small means alike.
      query_ids, gallery_ids: [Q], [G] identities. What matches no query is a distractor.
      query_cams, gallery_cams: [Q], [G] cameras.
      ranks: length of the CMC curve; with a smaller gallery the curve ends flat.
      chunk: queries worked on at a time; bounds the memory and does not change the result.

    Raises:
      ScoreError: shapes that do not fit each other, or no query with a match.
    """
    shape = (len(query_ids), len(gallery_ids))
    if distance_QG.shape != shape or (len(query_cams), len(gallery_cams)) != shape:
        raise ScoreError(
            f"expected distances and cameras for {shape[0]} queries and {shape[1]} gallery images, got "
            f"distances {distance_QG.shape}, {len(query_cams)} query and {len(gallery_cams)} gallery cameras"
        )
    ap, inp, first = (np.zeros(shape[0]) for _ in range(3))
    for rows in slices(shape[0], chunk):
        same = query_ids[rows, None] == gallery_ids
        kept = ~(same & (query_cams[rows, None] == gallery_cams))
        ap[rows], inp[rows], first[rows] = _score(distance_QG[rows], same, kept)
    valid = np.flatnonzero(first)
    if not len(valid):
        raise ScoreError("no query has a match of another camera in the gallery; expected at least one")
    cmc = (first[valid, None] <= np.arange(1, ranks + 1)).mean(0)
    return Scores(ap[valid], inp[valid], cmc, valid)


def _score(distance_QG: np.ndarray, same_QG: np.ndarray, kept_QG: np.ndarray) -> tuple[np.ndarray, ...]:
    """AP, INP and rank of the first match, [Q] each; 0 where nothing matches."""
    order = np.argsort(distance_QG, axis=1, kind="stable")
    kept = np.take_along_axis(kept_QG, order, axis=1)
    query, place = np.nonzero(np.take_along_axis(same_QG, order, axis=1) & kept)
    # One entry per match, queries in order, best match first: so its number within its query is a difference.
    rank = np.cumsum(kept, axis=1)[query, place]
    matches = np.bincount(query, minlength=len(order))
    start = np.cumsum(matches) - matches
    number = np.arange(len(query)) - start[query] + 1
    ap = np.bincount(query, weights=number / rank, minlength=len(order)) / np.maximum(matches, 1)
    first, last = np.zeros(len(order)), np.ones(len(order))
    found = matches > 0
    first[found], last[found] = rank[start[found]], rank[(start + matches - 1)[found]]
    return ap, matches / last, first


def expand(x_ND: np.ndarray, k: int, alpha: float = 3.0) -> np.ndarray:
    """Alpha query expansion: every feature becomes the mean of its k nearest ones, weighted, itself included.

    Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", arXiv 1711.02512.

    Args:
      x_ND: features of queries and gallery together, not normalized.
      k: neighbors by cosine similarity.
      alpha: the weights are the similarities to this power.

    Returns:
      [N, D] features in the dtype of the input.
    """
    if not 1 <= k <= len(x_ND):
        raise ScoreError(f"query expansion needs 1 to {len(x_ND)} neighbors (all images), got {k}")
    result = np.empty_like(x_ND)
    for rows in slices(len(x_ND), _CHUNK):
        distance = distances(x_ND[rows], x_ND)
        near = nearest(distance, k)
        weight = (1 - np.take_along_axis(distance, near, axis=1)) ** alpha
        result[rows] = np.einsum("nk,nkd->nd", weight / k, x_ND[near])
    return result


def slices(n: int, size: int) -> Iterator[slice]:
    """Cuts 0..n into consecutive slices of at most `size`."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))

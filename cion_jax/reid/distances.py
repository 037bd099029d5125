"""Distances between features, made a block at a time: the whole matrix of a large gallery would not fit.

Shape suffixes: Q queries, G gallery images, N any images, D feature dimensions, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from cion_jax.common.errors import UserError

METRICS = ("cosine", "euclidean")
FLOOR = 1e-12  # of squared euclidean distances, and of the length that cosine divides by
# Of a block of float32, of which two exist for a moment; rows enough for matrix products at full speed.
_BYTES, _MOST_ROWS = 2**27, 1024


# f([B, D], which of the gallery) -> [B, their number] products of the rows with these; made of the gallery [G, D].
Product = Callable[[np.ndarray, slice | np.ndarray], np.ndarray]


class ScoreError(UserError):
    """Features or labels that cannot be scored."""


class Distances(Protocol):
    """Distances of Q queries to G gallery images, small means alike."""

    shape: tuple[int, int]

    def rows(self, which: slice) -> np.ndarray:
        """[B, G] of the queries asked for; the caller may overwrite it."""
        ...


class Given:
    """Distances that are there already."""

    def __init__(self, distance_QG: np.ndarray):
        """Takes a matrix."""
        self._distance_QG = distance_QG
        self.shape = distance_QG.shape

    def rows(self, which: slice) -> np.ndarray:
        """[B, G], as in `Distances`."""
        return self._distance_QG[which].copy()


class Between:
    """Distances of features: "cosine", 1 - cos, or "euclidean", sqrt(max(d^2, 1e-12)) of the features as they are."""

    def __init__(
        self,
        query_QD: np.ndarray,
        gallery_GD: np.ndarray,
        metric: str = "cosine",
        product: Callable[[np.ndarray], Product] | None = None,
    ):
        """Copies nothing; float32 features stay float32.

        Args:
          query_QD, gallery_GD: features.
          metric: one of `METRICS`.
          product: what multiplies rows with the gallery given to it; None: NumPy.

        Raises:
          ScoreError: another metric, features of different widths, or features that are not finite.
        """
        if metric not in METRICS:
            raise ScoreError(f"there is no metric {metric!r}; expected one of {', '.join(METRICS)}")
        if query_QD.ndim != 2 or gallery_GD.ndim != 2 or query_QD.shape[1] != gallery_GD.shape[1]:
            raise ScoreError(f"expected two [n, d] matrices of one d, got {query_QD.shape} and {gallery_GD.shape}")
        self.shape = len(query_QD), len(gallery_GD)
        self.dtype = np.result_type(query_QD, gallery_GD)
        self._metric = metric
        self._query_QD, self._product = query_QD, (product or _on_host)(gallery_GD)
        self._query_Q, self._gallery_G = _squares(query_QD, "query"), _squares(gallery_GD, "gallery")

    def rows(self, which: slice) -> np.ndarray:
        """[B, G], as in `Distances`."""
        return self.tile(which, slice(None))

    def tile(self, rows: slice, columns: slice | np.ndarray) -> np.ndarray:
        """Distances of some queries to some of the gallery."""
        x_BD, x2_B, y2_G = self._query_QD[rows], self._query_Q[rows], self._gallery_G[columns]
        if self._metric == "cosine":
            return _cosine(self._product(x_BD / _length(x2_B)[:, None], columns), y2_G)
        return _euclidean(self._product(x_BD, columns), x2_B, y2_G)


def blocks(distances: Distances, most: int = _MOST_ROWS) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (rows, their [B, G] distances) over all queries, in memory that does not grow with their number."""
    size = min(max(_BYTES // (4 * max(distances.shape[1], 1)), 16), most)
    return ((rows, distances.rows(rows)) for rows in slices(distances.shape[0], size))


def slices(n: int, size: int) -> Iterator[slice]:
    """Cuts 0..n into consecutive slices of at most `size`."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _squares(x_ND: np.ndarray, what: str) -> np.ndarray:
    """[N] squared lengths; raises ScoreError where one is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [(x_ND[rows] ** 2).sum(axis=1) for rows in slices(len(x_ND), _MOST_ROWS)]
    square_N = np.concatenate([np.zeros(0, x_ND.dtype), *parts])
    bad = np.flatnonzero(~np.isfinite(square_N))
    if len(bad):
        raise ScoreError(
            f"features must be finite, got NaN or infinity in {len(bad)} of {len(x_ND)} rows of the {what} (first: row "
            f"{bad[0]}); look at the checkpoint that made them"
        )
    return square_N


def _on_host(gallery_GD: np.ndarray) -> Product:
    return lambda x_BD, columns: x_BD @ gallery_GD[columns].T


def _cosine(product_BG: np.ndarray, y2_G: np.ndarray) -> np.ndarray:
    """1 - cos. The gallery is scaled after the product, row by row: that saves a copy of it, and rows fit caches."""
    scale_G = 1 / _length(y2_G)
    for row_G in product_BG:
        np.multiply(row_G, scale_G, out=row_G)
        np.subtract(1, row_G, out=row_G)
    return product_BG


def _euclidean(product_BG: np.ndarray, x2_B: np.ndarray, y2_G: np.ndarray) -> np.ndarray:
    """Square root of |x|^2 + |y|^2 - 2 x y, from `FLOOR` on."""
    for row_G, x2 in zip(product_BG, x2_B, strict=True):
        np.multiply(row_G, 2, out=row_G)
        np.subtract(x2 + y2_G, row_G, out=row_G)
        np.sqrt(np.maximum(row_G, FLOOR, out=row_G), out=row_G)
    return product_BG


def _length(square_N: np.ndarray) -> np.ndarray:
    return np.maximum(np.sqrt(square_N), FLOOR)

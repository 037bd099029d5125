"""The nearest of every row, gathered a tile of distances at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Best:
    """The k nearest of every row so far, nearest first; equally near ones in the order of their numbers.

    Attributes:
      index: [N, k] int64; N where there are fewer so far.
      distance: [N, k], rising; infinite where there are fewer.
    """

    def __init__(self, count: int, k: int, dtype: npt.DTypeLike):
        """Of `count` rows."""
        self.index = np.full((count, k), count, np.int64)
        self.distance = np.full((count, k), np.inf, dtype)

    def add(self, row: np.ndarray, other: np.ndarray, distance: np.ndarray) -> None:
        """Takes [n] further ones into account: of the rows `row`, none of which is there already."""
        k = self.index.shape[1]
        changed = np.unique(row)
        row = np.concatenate([np.repeat(changed, k), row])
        other = np.concatenate([self.index[changed].ravel(), other])
        distance = np.concatenate([self.distance[changed].ravel(), distance])
        order = np.lexsort((other, distance, row))
        kept = order[np.searchsorted(row[order], changed)[:, None] + np.arange(k)]
        self.index[changed], self.distance[changed] = other[kept], distance[kept]

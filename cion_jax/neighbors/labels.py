"""Numbers for groups."""

from __future__ import annotations

import numpy as np


def numbered(labels: np.ndarray) -> np.ndarray:
    """[n] labels of any values -> [n] int64 numbers 0, 1, ... in the order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)

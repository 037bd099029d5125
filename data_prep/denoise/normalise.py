"""Makes features of different videos comparable, from nothing but videos and tracklets."""

from __future__ import annotations

import numpy as np

SHRINK = 3  # how much of an even spread is mixed into the spread within tracklets before it is divided by


def normalise(rows: np.ndarray, video: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    """Subtracts what a video's rows have in common, then evens out what varies within tracklets.

    A video's mean is its camera and light more than its people. What changes within a tracklet is pose, occlusion
    and noise: directions in which one person varies count less (within-class covariance normalisation, Hatch et al.,
    2006, with tracklets for classes).

    Args:
      rows: [n, d] float32 of unit length.
      video: [n] int64, 0 .. V-1.
      tracklet: [n] int64, 0 .. T-1.

    Returns:
      [n, d] float32 of unit length; a row that is its video's mean becomes 0.
    """
    rows = rows - _means(rows, video)[video]
    apart = rows - _means(rows, tracklet)[tracklet]
    spread, axes = np.linalg.eigh((apart.T @ apart).astype(np.float64))
    spread = np.maximum(spread, 0)
    even = spread.mean()
    if even > 0:
        rows = rows @ (axes / np.sqrt(spread / even + SHRINK)).astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-6)


def _means(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[labels, d] means; labels that nobody has get 0."""
    total = np.zeros((int(label.max(initial=-1)) + 1, rows.shape[1]), np.float32)
    np.add.at(total, label, rows)
    return total / np.maximum(np.bincount(label), 1).astype(np.float32)[:, None]

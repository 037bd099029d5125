"""Makes features of different videos comparable, from nothing but videos and tracklets."""

from __future__ import annotations

import numpy as np

from cion_jax.neighbors import normalization


def normalize(
    rows: np.ndarray,
    video: np.ndarray,
    tracklet: np.ndarray,
    shrinkage: float,
    trust: float = normalization.TRUST,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Subtracts what a video's rows have in common, then evens out what varies within tracklets.

    Args:
      rows: [n, d] float32 of unit length.
      video: [n] int64, 0 .. V-1.
      tracklet: [n] int64, 0 .. T-1.
      shrinkage, trust: as `normalization.learn` takes them.
      out: where the result goes; it may be `rows`. None: into memory of its own.

    Returns:
      [n, d] float32 of unit length; a row that is its video's mean becomes 0.
    """
    return normalization.learn(rows, video, tracklet, shrinkage, trust)(rows, video, out)

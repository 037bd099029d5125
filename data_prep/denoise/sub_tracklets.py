"""Cuts long tracklets into a few parts of like looks, so that neighbor lists are not filled by one tracklet."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from cion_jax.neighbors import cosine
from cion_jax.neighbors.labels import numbered

MOST = 8  # parts of one tracklet


def divide(features: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    """Numbers the parts of all tracklets of one video.

    A tracklet of up to `MOST` images has each by itself. A longer one is divided by average linkage of cosine
    distances, so that images unlike the rest are likely to be parts of their own.

    Args:
      features: [m, d], none of them 0.
      tracklet: [m] int64, 0, .., 0, 1, .., 1, 2, ...

    Returns:
      [m] int64 parts, numbered by their first image; all images of one part are of one tracklet.
    """
    pieces, count = [np.zeros(0, np.int64)], 0
    for x in np.split(features, np.flatnonzero(np.diff(tracklet)) + 1) if len(features) else []:
        pieces.append(_divided(x) + count)
        count = int(pieces[-1].max()) + 1
    return np.concatenate(pieces)


def _divided(features: np.ndarray) -> np.ndarray:
    if len(features) <= MOST:
        return np.arange(len(features))
    x = cosine.unit(features)
    apart = np.maximum(cosine.distance(x @ x.T), 0)
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(distance.squareform(apart, checks=False), "average")
    labels = hierarchy.cut_tree(tree, MOST)[:, 0]
    return numbered(labels)

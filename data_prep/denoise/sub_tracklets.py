"""Cuts long tracklets into a few sub-tracklets of like looks, so that neighbor lists are not filled by one tracklet."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from cion_jax.neighbors import cosine
from cion_jax.neighbors.labels import numbered


def divide(features: np.ndarray, tracklet: np.ndarray, most: int) -> np.ndarray:
    """Numbers the sub-tracklets of all tracklets of one video.

    A tracklet of up to `most` images has each by itself. A longer one is divided by average linkage of cosine
    distances, so that images unlike the rest are likely to be sub-tracklets of their own.

    Args:
      features: [m, d], none of them 0.
      tracklet: [m] int64, 0, .., 0, 1, .., 1, 2, ...
      most: sub-tracklets of one tracklet, at least 1.

    Returns:
      [m] int64 sub-tracklets, numbered by their first image; all images of one are of one tracklet.
    """
    pieces, count = [np.zeros(0, np.int64)], 0
    unit = cosine.unit(features)
    for x in np.split(unit, np.flatnonzero(np.diff(tracklet)) + 1) if len(unit) else []:
        pieces.append(_divided(x, most) + count)
        count = int(pieces[-1].max()) + 1
    return np.concatenate(pieces)


def _divided(x: np.ndarray, most: int) -> np.ndarray:
    if len(x) <= most:
        return np.arange(len(x))
    apart = np.maximum(cosine.distance(x @ x.T), 0)
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(distance.squareform(apart, checks=False), "average")
    return numbered(_cut(tree, most))


def _cut(tree: np.ndarray, most: int) -> np.ndarray:
    """[n] labels of `most` groups: what the first merges of a linkage tree [n - 1, 4] joined."""
    count = len(tree) + 1
    label = list(range(2 * count - most))  # every merge makes a node of its own, numbered after what it joins
    joined = tree[: count - most, :2].astype(np.int64).tolist()
    for node in range(len(label) - 1, count - 1, -1):
        first, second = joined[node - count]
        label[first] = label[second] = label[node]
    return np.array(label[:count])

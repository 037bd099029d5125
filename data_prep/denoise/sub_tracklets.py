"""Cuts long tracklets into a few sub-tracklets of like looks, so that neighbor lists are not filled by one tracklet."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from cion_jax.neighbors import cosine
from cion_jax.neighbors.labels import numbered


def divide(features: np.ndarray, tracklet: np.ndarray, short: int, pieces: int) -> np.ndarray:
    """Numbers the sub-tracklets of all tracklets of one video.

    A tracklet of up to `short` images has each by itself. A longer one is divided by average linkage of cosine
    distances, so that images unlike the rest are likely to be sub-tracklets of their own: into `pieces`, or into more
    until no two of its groups are further apart than those of the video's median tracklet in `pieces`. So a tracklet
    that a tracker led from one person to another is taken apart, and an even one does not fill neighbors' lists.

    Args:
      features: [m, d], none of them 0.
      tracklet: [m] int64, 0, .., 0, 1, .., 1, 2, ...
      short: images of a tracklet that is not divided but taken image by image.
      pieces: sub-tracklets of a longer one at least, 1 or more; with 1 none is divided.

    Returns:
      [m] int64 sub-tracklets, numbered by their first image; all images of one are of one tracklet.
    """
    unit = cosine.unit(features)
    whole = np.split(unit, np.flatnonzero(np.diff(tracklet)) + 1) if len(unit) else []
    trees = [_tree(x) if len(x) > max(short, pieces) else None for x in whole]
    heights = [_height(tree, pieces) for tree in trees if tree is not None]
    usual = float(np.median(heights)) if heights else 0.0
    found, count = [np.zeros(0, np.int64)], 0
    for x, tree in zip(whole, trees, strict=True):
        own = np.arange(len(x)) if tree is None else _divided(tree, pieces, usual)
        found.append(own + count)
        count += int(own.max()) + 1
    return np.concatenate(found)


def _tree(x: np.ndarray) -> np.ndarray:
    """[n - 1, 4] linkage of [n, d] unit rows; its third column rises."""
    apart = np.maximum(cosine.distance(x @ x.T), 0)
    np.fill_diagonal(apart, 0)
    return hierarchy.linkage(distance.squareform(apart, checks=False), "average")


def _height(tree: np.ndarray, pieces: int) -> float:
    """How far apart the nearest two of `pieces` groups are; there are none of one."""
    return float(tree[1 - pieces, 2]) if pieces > 1 else np.inf


def _divided(tree: np.ndarray, pieces: int, usual: float) -> np.ndarray:
    more = 1 + int(np.count_nonzero(tree[:, 2] > usual))
    return numbered(_cut(tree, max(pieces, more)))


def _cut(tree: np.ndarray, most: int) -> np.ndarray:
    """[n] labels of `most` groups: what the first merges of a linkage tree [n - 1, 4] joined."""
    count = len(tree) + 1
    label = list(range(2 * count - most))  # every merge makes a node of its own, numbered after what it joins
    joined = tree[: count - most, :2].astype(np.int64).tolist()
    for node in range(len(label) - 1, count - 1, -1):
        first, second = joined[node - count]
        label[first] = label[second] = label[node]
    return np.array(label[:count])

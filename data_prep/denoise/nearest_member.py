"""At which distance things are together: each one's nearest other of its group."""

from __future__ import annotations

import numpy as np

from cion_jax.neighbors import cosine

_BLOCK = 1024  # rows compared at a time


def nearest(means: np.ndarray, group: np.ndarray, most: int) -> np.ndarray:
    """Distance of every row to the nearest other row of its group.

    Args:
      means: [n, d].
      group: [n] int64, -1: none.
      most: members of a group that are compared with; of a larger one that many, evenly spread.

    Returns:
      [n] float64 cosine distances; nan for a row that is alone.
    """
    found = np.full(len(group), np.nan)
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(rows) > 1 and group[rows[0]] >= 0:
            found[rows] = _nearest(cosine.unit(means[rows]), most)
    return found


def within_video(features: np.ndarray, tracklet: np.ndarray, identity: np.ndarray, most: int) -> np.ndarray:
    """Distance of the centroid of every image's tracklet to the nearest other tracklet of its identity.

    Args:
      features: [m, d] of one video.
      tracklet: [m] int64 after level 2 (a), -1: none.
      identity: [m] int64 after level 2 (b), one for all images of a tracklet; -1 where `tracklet` is.
      most: see `nearest`.

    Returns:
      [m] float64 cosine distances; nan where the identity has no other tracklet, and for images without one.
    """
    group = np.full(int(tracklet.max(initial=-1)) + 1, -1)
    group[tracklet[tracklet >= 0]] = identity[tracklet >= 0]
    if np.bincount(group[group >= 0], minlength=1).max() < 2:
        return np.full(len(tracklet), np.nan)
    means = cosine.centroids([(features, tracklet)], len(group))
    return np.append(nearest(means, group, most), np.nan)[tracklet]


def _nearest(unit: np.ndarray, most: int) -> np.ndarray:
    some = np.unique(np.linspace(0, len(unit) - 1, min(len(unit), most)).round().astype(int))
    found = []
    for start in range(0, len(unit), _BLOCK):
        apart = cosine.distance(unit[start : start + _BLOCK] @ unit[some].T)
        apart[np.arange(start, start + len(apart))[:, None] == some] = np.inf
        found.append(apart.min(axis=1))
    return np.concatenate(found)

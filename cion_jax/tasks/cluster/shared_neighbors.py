"""Pseudo labels by shared neighbors: average linkage of how much images' neighborhoods overlap.

What `data_prep` does with tracklets, for images that have none. Cameras' means are taken off first, images of one video
on one frame are of different people, and the threshold is read off the data: half way between how much an image shares
with its closest and how much those share who cannot be one person.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from cion_jax.neighbors import linkage, search
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from cion_jax.neighbors.normalization import Normalization
from cion_jax.neighbors.reciprocal import overlaps
from cion_jax.tasks.cluster.config import SharedNeighborsConfig


def clusters(
    features: np.ndarray,
    camera: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    own: SharedNeighborsConfig,
    exact_rows: int,
) -> np.ndarray:
    """[N] int64 clusters; -1: an image whose cluster has fewer than `min_images`.

    Args:
      features: [N, D] float32 of unit length.
      camera, video, frame: [N] int64, -1 where not known; see `data.target.Target`.
      own: settings.
      exact_rows: images up to which all pairs are compared.
    """
    rows = without_cameras(features, camera) if own.center else features
    k = min(own.k1, math.ceil(math.sqrt(len(rows))), len(rows) - 1)
    near = search.with_self(search.nearest(rows, k, exact_rows))
    pairs, overlap = overlaps(rows, near, own.k2, own.agreement, own.min_overlap, own.most)
    pairs = pairs[0].astype(np.int64), pairs[1].astype(np.int64)
    apart = at_one_moment(video, frame) if own.cannot_link else NO_PAIRS
    threshold = own.threshold or calibrated(len(rows), pairs, overlap, apart)
    found = linkage.average(np.ones(len(rows)), pairs, overlap, threshold, apart)
    return np.where(np.bincount(found)[found] >= own.min_images, found, -1)


def without_cameras(features: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """[N, D] features without the mean of their camera, of unit length."""
    _, number = np.unique(camera, return_inverse=True)
    empty = Normalization(np.zeros((1, features.shape[1]), np.float32), None)
    return empty.with_means_of(features, number)(features, number)


def at_one_moment(video: np.ndarray, frame: np.ndarray) -> Pairs:
    """Pairs i < j of images of one video on one frame, where both are known."""
    known = np.flatnonzero((video >= 0) & (frame >= 0))
    order = known[np.lexsort((known, frame[known], video[known]))]
    pieces = [np.zeros((2, 0), np.int64)]
    for step in itertools.count(1):
        i, j = order[: max(len(order) - step, 0)], order[step:]
        together = (video[i] == video[j]) & (frame[i] == frame[j])
        if not together.any():
            break
        pieces.append(np.stack([i, j])[:, together])
    first, second = np.concatenate(pieces, axis=1)
    return first, second


def calibrated(count: int, pairs: Pairs, overlap: np.ndarray, apart: Pairs) -> float:
    """The threshold half way between two medians: of every image's largest overlap, and of those of `apart`."""
    best = np.zeros(count)
    for ends in pairs:
        np.maximum.at(best, ends, overlap)
    keys, wanted = pairs[0] * count + pairs[1], apart[0] * count + apart[1]
    order = np.argsort(keys)
    at = np.minimum(np.searchsorted(keys[order], wanted), max(len(keys) - 1, 0))
    listed = keys[order][at] == wanted if len(keys) else np.zeros(len(wanted), bool)
    others = np.where(listed, overlap[order][at], 0) if len(keys) else np.zeros(len(wanted))
    low = float(np.median(others)) if len(others) else 0.0
    return max((float(np.median(best)) + low) / 2, 1e-9)

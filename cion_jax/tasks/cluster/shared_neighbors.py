"""Pseudo labels by shared neighbors: average linkage of how much images' neighborhoods overlap.

What `data_prep` does with tracklets, for images that have none. Cameras' means are taken off first, and images of one
video on one frame are of different people, unless they look like one who was found twice: detectors do that.
"""

from __future__ import annotations

import itertools

import numpy as np

from cion_jax.neighbors import shared
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from cion_jax.neighbors.normalization import Normalization
from cion_jax.tasks.cluster.config import SharedNeighborsConfig


def clusters(
    features: np.ndarray,
    camera: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    own: SharedNeighborsConfig,
    search: shared.Search,
) -> np.ndarray:
    """[N] int64 clusters; -1: an image whose cluster has fewer than `min_images`.

    Args:
      features: [N, D] float32 of unit length.
      camera, video, frame: [N] int64, -1 where not known; see `data.target.Target`.
      own: settings.
      search: what of many images is compared.
    """
    rows, count = without_cameras(features, camera) if own.center else features, len(features)
    nodes = shared.Nodes(rows, np.ones(count, int), camera, np.arange(count), np.zeros(count, bool))
    moments = at_one_moment(video, frame) if own.cannot_link else NO_PAIRS
    found = shared.cluster(nodes, shared.Apart(cannot=moments), own, search).label
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

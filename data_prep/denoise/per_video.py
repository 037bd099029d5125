"""Levels 1 and 2 for all tracklets of one video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from data_prep.denoise import nearest_member, single_tracklet, single_video


@dataclass(frozen=True)
class Levels:
    """What levels 1 and 2 did with the m images of one video.

    Attributes:
      round: [m] int32, see `single_tracklet.Cleaned`.
      distance: [m] float64, see `single_tracklet.Cleaned`.
      tracklet: [m] int64 tracklet after level 2 (a), -1: discarded.
      nearest: [m] float64 distance of excluded images to the nearest other tracklet, else nan.
      identity: [m] int64 identity within the video after level 2 (b), -1: none.
      joined: [m] float64 distance of its tracklet to the nearest other of that identity, nan: there is no other.
    """

    round: np.ndarray
    distance: np.ndarray
    tracklet: np.ndarray
    nearest: np.ndarray
    identity: np.ndarray
    joined: np.ndarray


def denoise(
    features: np.ndarray, tracklet: np.ndarray, sigma_cst: float, sigma_drm: float, cannot: Pairs = NO_PAIRS
) -> Levels:
    """Runs both levels.

    Args:
      features: [m, d] of one video, none of them 0.
      tracklet: [m] int64, 0, .., 0, 1, .., 1, 2, ...: the images of a tracklet lie together, in time order.
      sigma_cst: consistency limit, a cosine distance.
      sigma_drm: discrimination limit, a cosine distance.
      cannot: images whose tracklets must not become one identity.
    """
    starts = np.flatnonzero(np.diff(tracklet)) + 1
    cleaned = [single_tracklet.clean(x, sigma_cst) for x in np.split(features, starts)]
    rounds = np.concatenate([c.round for c in cleaned])
    moved, nearest = single_video.reassign(features, tracklet, rounds == 0, sigma_cst)
    identity = single_video.merge(features, moved, sigma_drm, cannot)
    joined = nearest_member.within_video(features, moved, identity)
    return Levels(rounds, np.concatenate([c.distance for c in cleaned]), moved, nearest, identity, joined)

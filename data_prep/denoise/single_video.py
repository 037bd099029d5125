"""Level 2: in one video, excluded images find another tracklet and tracklets of one person join (eq. 5-6)."""

from __future__ import annotations

import numpy as np

from cion_jax.neighbors import cosine, search
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs, between
from data_prep.denoise.settings import DEFAULT_SEARCH, SearchSettings

_ROWS = 4096  # excluded images compared with all tracklets at a time


def reassign(
    features: np.ndarray, tracklet: np.ndarray, keep: np.ndarray, sigma_cst: float
) -> tuple[np.ndarray, np.ndarray]:
    """(a): every excluded image goes to the nearest *other* tracklet if that is nearer than sigma_cst.

    The centroids are those of the images that level 1 kept, and stay as they are meanwhile. Of equally near
    tracklets the earliest takes the image.

    Args:
      features: [m, d] of one video.
      tracklet: [m] int64, 0 .. T-1; every tracklet has an image that level 1 kept.
      keep: [m] bool, level 1 left the image where it is.
      sigma_cst: consistency threshold, a cosine distance.

    Returns:
      [m] int64 tracklets, -1 for images that were discarded, and
      [m] float64 distances of excluded images to the nearest other tracklet, nan where there is none.
    """
    moved, nearest = tracklet.copy(), np.full(len(tracklet), np.nan)
    count = int(tracklet.max(initial=-1)) + 1
    excluded = np.flatnonzero(~keep)
    means = cosine.unit(cosine.centroids([(features, np.where(keep, tracklet, -1))], count))
    moved[excluded] = -1
    for start in range(0, len(excluded) if count > 1 else 0, _ROWS):
        rows = excluded[start : start + _ROWS]
        apart = cosine.distance(cosine.unit(features[rows]) @ means.T)
        apart[np.arange(len(rows)), tracklet[rows]] = np.inf
        best = apart.argmin(axis=1)
        nearest[rows] = apart[np.arange(len(rows)), best]
        moved[rows] = np.where(nearest[rows] < sigma_cst, best, -1)
    return moved, nearest


def merge(
    features: np.ndarray,
    tracklet: np.ndarray,
    sigma_drm: float,
    cannot: Pairs = NO_PAIRS,
    settings: SearchSettings = DEFAULT_SEARCH,
) -> np.ndarray:
    """(b): tracklets whose centroids are within sigma_drm are one identity, also those joined by a chain.

    The centroids are computed once, after (a).

    Args:
      features: [m, d] of one video.
      tracklet: [m] int64 after (a), -1 for images without one.
      sigma_drm: discrimination threshold, a cosine distance.
      cannot: images whose tracklets must not become one identity.
      settings: of the search.

    Returns:
      [m] int64 identities within the video, numbered by their first tracklet; -1 where `tracklet` is.
    """
    count = int(tracklet.max(initial=-1)) + 1
    means = cosine.centroids([(features, tracklet)], count)
    identity = search.identities(
        means, sigma_drm, count, between(tracklet, cannot), settings.exact_rows, settings.neighbors
    )
    return np.where(tracklet >= 0, np.append(identity, -1)[tracklet], -1)

"""Selection: from each identity a bounded random number of images, spread over its tracklets."""

from __future__ import annotations

import numpy as np

from data_prep.config import Config


def select(identity: np.ndarray, tracklet: np.ndarray, config: Config) -> tuple[np.ndarray, dict[str, int]]:
    """Chooses the images that are written.

    The choice within an identity is a function of the seed, its number and its images, not of other identities.

    Args:
      identity: [n] int64, -1 for images without one.
      tracklet: [n] int64, number of the source tracklet.
      config: seed and bounds.

    Returns:
      [n] bool, and how many images were not selected by reason.
    """
    selected = np.zeros(len(identity), bool)
    order = np.argsort(identity, kind="stable")
    names, starts, sizes = np.unique(identity[order], return_index=True, return_counts=True)
    dropped = {"no identity": 0, "identity too small": 0, "identity full": 0}
    for name, start, size in zip(names, starts, sizes, strict=True):
        rows = order[start : start + size]
        if name < 0:
            dropped["no identity"] += len(rows)
        elif len(rows) < config.min_identity_images:
            dropped["identity too small"] += len(rows)
        else:
            chosen = _draw(tracklet[rows], config.max_identity_images, [config.seed, int(name)])
            selected[rows[chosen]] = True
            dropped["identity full"] += len(rows) - len(chosen)
    return selected, dropped


def _draw(tracklet: np.ndarray, most: int, seed: list[int]) -> np.ndarray:
    """At most `most` positions: one image of every tracklet, then a second one, and so on, in random order."""
    if len(tracklet) <= most:
        return np.arange(len(tracklet))
    shuffled = np.random.default_rng(seed).permutation(len(tracklet))
    turn = np.zeros(len(tracklet), np.int64)  # how many images of its tracklet come before
    for name in np.unique(tracklet):
        mine = tracklet[shuffled] == name
        turn[mine] = np.arange(mine.sum())
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:most]])

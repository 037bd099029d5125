"""Co-occurrence: images of one video on one frame show different people."""

from __future__ import annotations

import itertools

import numpy as np

from cion_jax.neighbors.linkage import Pairs
from data_prep.denoise.settings import CooccurrenceSettings


def cooccurring(frame: np.ndarray, tracklet: np.ndarray, box: np.ndarray, settings: CooccurrenceSettings) -> Pairs:
    """Pairs of images of one video that cannot show one person.

    Args:
      frame: [m] int64, -1 where unknown.
      tracklet: [m] int64.
      box: [m, 4] left, top, width, height; nan where unknown.
      settings: from when on it counts.

    Returns:
      Pairs i < j on one frame, in different tracklets that co-occur on `min_frames` frames or more, with boxes whose
      intersection over union is not above `max_iou`.
    """
    order = np.argsort(frame, kind="stable")
    order = order[frame[order] >= 0]
    pieces = [np.zeros((2, 0), np.int64)]
    for step in itertools.count(1):
        a, b = order[: max(len(order) - step, 0)], order[step:]
        together = frame[a] == frame[b]
        if not together.any():
            break
        pieces.append(np.stack([np.minimum(a, b), np.maximum(a, b)])[:, together])
    i, j = np.concatenate(pieces, axis=1)
    apart = (tracklet[i] != tracklet[j]) & ~(_iou(box[i], box[j]) > settings.max_iou)
    return _often(i[apart], j[apart], tracklet, settings.min_frames)


def _often(i: np.ndarray, j: np.ndarray, tracklet: np.ndarray, least: int) -> Pairs:
    ends = np.sort(np.stack([tracklet[i], tracklet[j]]), axis=0)
    _, which, count = np.unique(ends, axis=1, return_inverse=True, return_counts=True)
    often = count[which] >= least
    return i[often], j[often]


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 4]; nan where one is unknown."""
    start = np.maximum(a[:, :2], b[:, :2])
    end = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    common = np.maximum(end - start, 0).prod(axis=1)
    return common / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - common)

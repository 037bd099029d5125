"""Who was seen together: images of one video on one frame show different people."""

from __future__ import annotations

import itertools

import numpy as np

from cion_jax.neighbors.linkage import Pairs

LEAST = 2  # frames on which two tracklets must meet; a single one may be owed to one stray image
DOUBLE = 0.5  # overlap (intersection over union) from which two boxes are one person detected twice


def meetings(frame: np.ndarray, tracklet: np.ndarray, box: np.ndarray) -> Pairs:
    """Pairs of images of one video that cannot show one person.

    Args:
      frame: [m] int64, -1 where unknown.
      tracklet: [m] int64.
      box: [m, 4] left, top, width, height; nan where unknown.

    Returns:
      Pairs i < j on one frame, in different tracklets that meet on `LEAST` frames or more, with boxes that do not
      cover each other by more than `DOUBLE`.
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
    apart = (tracklet[i] != tracklet[j]) & ~(_overlap(box[i], box[j]) > DOUBLE)
    return _often(i[apart], j[apart], tracklet)


def _often(i: np.ndarray, j: np.ndarray, tracklet: np.ndarray) -> Pairs:
    ends = np.sort(np.stack([tracklet[i], tracklet[j]]), axis=0)
    _, which, count = np.unique(ends, axis=1, return_inverse=True, return_counts=True)
    often = count[which] >= LEAST
    return i[often], j[often]


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 4]; nan where one is unknown."""
    start = np.maximum(a[:, :2], b[:, :2])
    end = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    common = np.maximum(end - start, 0).prod(axis=1)
    return common / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - common)

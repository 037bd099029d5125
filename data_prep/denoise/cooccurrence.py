"""Co-occurrence: tracklets that are seen together on several frames of a video show different people.

It is judged on all boxes that a source knows, also those whose images were not kept: two long tracklets, each thinned
on a grid of its own, may share no frame any more. What is said of a frame is held against the two kept images nearest
to it in time, not against the tracklets: a tracklet may hold an image of somebody else, and that one met nobody. Where
everything is kept these are the images on that frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from cion_jax.neighbors.linkage import Pairs
from data_prep.denoise.settings import CooccurrenceSettings


def cooccurring(
    frame: np.ndarray,
    tracklet: np.ndarray,
    box: np.ndarray,
    settings: CooccurrenceSettings,
    image: np.ndarray | None = None,
) -> Pairs:
    """Pairs of images of one video that cannot show one person.

    Two tracklets co-occur where they are apart, with an intersection over union of their boxes of `max_iou` or less, on
    `min_frames` frames or more, and on at least as many as they cover each other on: of one person found twice, some
    boxes are apart by chance, and in thousands of frames two are soon found. Memory is that of the boxes and of the
    pairs that come out.

    Args:
      frame: [m] int64 of every box, -1 where unknown.
      tracklet: [m] int64.
      box: [m, 4] left, top, width, height; nan where unknown, which covers nothing.
      settings: from when on it counts.
      image: [m] int64 image that stands for the box, as of `nearest_kept`; None: box and image are one.

    Returns:
      Distinct pairs i < j of images that stand for two boxes apart on one frame, of tracklets that co-occur.
    """
    image = np.arange(len(frame)) if image is None else image
    count = int(tracklet.max(initial=-1)) + 1
    often = _often(frame, tracklet, box, settings, count)
    images, found = int(image.max(initial=0)) + 1, [_NONE]
    for a, b, apart in _together(frame, tracklet, box, settings.max_iou):
        met = apart & np.isin(_key(tracklet, a, b, count), often)
        found.append(np.unique(_key(image, a[met], b[met], images)))
    i, j = np.divmod(np.unique(np.concatenate(found)), images)
    return i, j


def nearest_kept(frame: np.ndarray, tracklet: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """For every box that one of its tracklet's that was kept and is nearest in time, of two the earlier.

    Args:
      frame: [m] int64 of every box.
      tracklet: [m] int64; one at least of every tracklet is kept.
      kept: [k] numbers of boxes.

    Returns:
      [m] positions in `kept`.
    """
    moments, at = np.unique(frame, return_inverse=True)
    key = tracklet * (len(moments) + 1) + at
    order = np.argsort(key[kept], kind="stable")
    ordered = kept[order]
    after = np.searchsorted(key[ordered], key)
    before, after = np.maximum(after - 1, 0), np.minimum(after, len(kept) - 1)
    late, early = (np.abs(frame[ordered[side]] - frame) for side in (after, before))
    strange = [tracklet[ordered[side]] != tracklet for side in (after, before)]
    return order[np.where(strange[0] | (~strange[1] & (early <= late)), before, after)]


_NONE = np.zeros(0, np.int64)


def _together(
    frame: np.ndarray, tracklet: np.ndarray, box: np.ndarray, max_iou: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of boxes on one frame and in two tracklets, [n] and [n], and [n] bool: apart. Every pair comes once."""
    order = np.argsort(frame, kind="stable")
    order = order[frame[order] >= 0]
    for step in itertools.count(1):
        a, b = order[: max(len(order) - step, 0)], order[step:]
        together = frame[a] == frame[b]
        if not together.any():
            return
        together &= tracklet[a] != tracklet[b]
        a, b = a[together], b[together]
        yield a, b, ~(_iou(box[a], box[b]) > max_iou)


def _often(
    frame: np.ndarray, tracklet: np.ndarray, box: np.ndarray, settings: CooccurrenceSettings, count: int
) -> np.ndarray:
    """Keys of the pairs of tracklets that co-occur."""
    known, frames = _NONE, np.zeros((2, 0), np.int64)  # covered, apart
    for a, b, apart in _together(frame, tracklet, box, settings.max_iou):
        keys, which = np.unique(np.concatenate([known, _key(tracklet, a, b, count)]), return_inverse=True)
        whole = np.zeros((2, len(keys)), np.int64)
        whole[:, which[: len(known)]] = frames
        np.add.at(whole, (apart.astype(np.int64), which[len(known) :]), 1)
        known, frames = keys, whole
    return known[(frames[1] >= settings.min_frames) & (frames[1] >= frames[0])]


def _key(number: np.ndarray, a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """[n] one number for every pair of numbers, whichever comes first."""
    return np.minimum(number[a], number[b]) * count + np.maximum(number[a], number[b])


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 4]; nan where one is unknown."""
    start = np.maximum(a[:, :2], b[:, :2])
    end = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    common = np.maximum(end - start, 0).prod(axis=1)
    return common / (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - common)

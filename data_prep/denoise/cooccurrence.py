"""Co-occurrence: tracklets that are seen together on several frames of a video show different people.

It is judged on all boxes that a source knows, also those whose images were not kept: two long tracklets, each thinned
on a grid of its own, may share no frame any more. What is said of a frame is held against the two kept images nearest
to it in time, not against the tracklets: a tracklet may hold an image of somebody else, and that one met nobody. Where
everything is kept these are the images on that frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

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
    order = np.argsort(frame, kind="stable")
    order = order[frame[order] >= 0]
    frame, tracklet, image, boxes = frame[order], tracklet[order], image[order], _Boxes.of(box[order])
    often = _often(frame, tracklet, boxes, settings)
    images, tracklets, found = int(image.max(initial=0)) + 1, int(tracklet.max(initial=0)) + 1, [_NONE]
    for a, b, apart in _together(frame, tracklet, boxes, settings.max_iou):
        a, b = a[apart], b[apart]
        met = _among(often, _key(tracklet[a], tracklet[b], tracklets))
        found.append(np.unique(_key(image[a[met]], image[b[met]], images)))
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


@dataclass(frozen=True)
class _Boxes:
    """Columns [m] of boxes; nan where unknown."""

    left: np.ndarray
    top: np.ndarray
    right: np.ndarray
    bottom: np.ndarray
    area: np.ndarray

    @classmethod
    def of(cls, box: np.ndarray) -> _Boxes:
        left, top, width, height = np.ascontiguousarray(box.T)
        return cls(left, top, left + width, top + height, width * height)

    def iou(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Intersection over union of boxes a and b [n]; nan where one is unknown."""
        across = np.minimum(self.right[a], self.right[b]) - np.maximum(self.left[a], self.left[b])
        down = np.minimum(self.bottom[a], self.bottom[b]) - np.maximum(self.top[a], self.top[b])
        common = np.maximum(across, 0) * np.maximum(down, 0)
        return common / (self.area[a] + self.area[b] - common)


def _together(
    frame: np.ndarray, tracklet: np.ndarray, box: _Boxes, max_iou: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of boxes on one frame and in two tracklets, [n] and [n], and [n] bool: apart. Every pair comes once."""
    known = not np.isnan(box.area).all()
    for step in range(1, len(frame)):
        a = np.flatnonzero(frame[:-step] == frame[step:])
        if not len(a):
            return
        a = a[tracklet[a] != tracklet[a + step]]
        yield a, a + step, ~(box.iou(a, a + step) > max_iou) if known else np.ones(len(a), bool)


def _often(frame: np.ndarray, tracklet: np.ndarray, box: _Boxes, settings: CooccurrenceSettings) -> np.ndarray:
    """Keys of the pairs of tracklets that co-occur, in order."""
    count = int(tracklet.max(initial=0)) + 1
    frames = [sp.csr_array((count, count), dtype=np.int32) for _ in range(2)]  # covered, apart
    for a, b, apart in _together(frame, tracklet, box, settings.max_iou):
        first, second = (choose(tracklet[a], tracklet[b]) for choose in (np.minimum, np.maximum))
        for kind in (0, 1):
            ends = first[apart == kind], second[apart == kind]
            frames[kind] = frames[kind] + sp.csr_array((np.ones(len(ends[0]), np.int32), ends), shape=(count, count))
    i, j = frames[1].nonzero()
    if not len(i):
        return _NONE
    covered, apart = (np.asarray(kind[i, j]) for kind in frames)
    often = (apart >= settings.min_frames) & (apart >= covered)
    return np.sort(_key(i[often], j[often], count))


def _key(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """[n] one number for every pair of numbers, whichever comes first."""
    return np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b)


def _among(ordered: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Whether the asked numbers are among ordered ones."""
    if not len(ordered):
        return np.zeros(len(asked), bool)
    return ordered[np.minimum(np.searchsorted(ordered, asked), len(ordered) - 1)] == asked

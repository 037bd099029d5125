"""Makes features of different videos comparable, from nothing but videos and tracklets."""

from __future__ import annotations

import numpy as np

from cion_jax.neighbors import cosine

_BLOCK = 2**16
_TRUST = 3  # how many times as sure of a video's mean as its number of tracklets says


def normalize(rows: np.ndarray, video: np.ndarray, tracklet: np.ndarray, shrinkage: float) -> np.ndarray:
    """Subtracts what a video's rows have in common, then evens out what varies within tracklets.

    A video's mean is its camera and light more than its people. What changes within a tracklet is pose, occlusion
    and noise: directions in which one person varies count less (within-class covariance normalization, Hatch et al.,
    2006, with tracklets for classes).

    Args:
      rows: [n, d] float32 of unit length.
      video: [n] int64, 0 .. V-1.
      tracklet: [n] int64, 0 .. T-1.
      shrinkage: how much of an even spread is mixed into the spread within tracklets before it is divided by, > 0. It
        grows by as much again for every d differences that there are too few: a spread that was seen in few rows is
        that of these rows, and would pull them together.

    Returns:
      [n, d] float32 of unit length; a row that is its video's mean becomes 0.
    """
    result, of_video = np.empty_like(rows), _of_videos(rows, video, tracklet)
    for block in _blocks(len(rows)):
        np.subtract(rows[block], of_video[video[block]], out=result[block])
    of_tracklet, within = _means(result, tracklet), np.zeros((rows.shape[1],) * 2)
    for block in _blocks(len(rows)):
        apart = result[block] - of_tracklet[tracklet[block]]
        within += apart.T @ apart
    freedom = len(rows) - len(np.unique(tracklet))
    shrinkage *= 1 + rows.shape[1] / max(freedom, 1)
    spread, axes = np.linalg.eigh(within)
    spread = np.maximum(spread, 0)
    even = spread.mean()
    evened = (axes / np.sqrt(spread / even + shrinkage)).astype(np.float32) if even > 0 else None
    for block in _blocks(len(rows)):
        found = result[block] if evened is None else result[block] @ evened
        result[block] = cosine.unit(found, np.float32)
    return result


def _of_videos(rows: np.ndarray, video: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    """[V, d] what the rows of every video have in common, as far as it is more than the few people they show.

    The mean of a video is drawn to that of all videos, by as much of its distance as the spread of tracklets about it
    explains (empirical Bayes; James and Stein, 1961): with a hundred people hardly at all, with three a lot. A third of
    that: what is left of a camera is in all of its pairs, what is taken from people only in theirs.
    """
    means, whole = _means(rows, video), rows.mean(axis=0)
    found, first = np.unique(tracklet, return_index=True)
    home = video[first]
    count = np.maximum(np.bincount(home, minlength=len(means)), 1)
    within = np.square(_means(rows, tracklet)[found] - means[home]).sum() / max(len(found) - len(means), 1)
    between = max(np.square(means - whole).sum(axis=1).mean() - within * (1 / count).mean(), 0)
    share = between / np.maximum(between + within / (_TRUST * count), np.finfo(np.float32).tiny)
    return (whole + share[:, None] * (means - whole)).astype(np.float32)


def _blocks(count: int) -> list[slice]:
    """Rows that are worked on at a time: little is held besides what comes in and goes out."""
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]


def _means(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[labels, d] means; labels that nobody has get 0."""
    total = np.zeros((int(label.max(initial=-1)) + 1, rows.shape[1]), np.float32)
    np.add.at(total, label, rows)
    return total / np.maximum(np.bincount(label), 1).astype(np.float32)[:, None]

"""Features that cameras make alike and tracklets make unalike, made comparable: learnt without a label.

A camera's mean is its light and place more than its people. What changes within a tracklet is pose, occlusion and
noise: directions in which one person varies count less (within-class covariance normalization, Hatch et al., 2006,
with tracklets for classes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cion_jax.neighbors import cosine

TRUST = 3.0
"""How many times as sure of a group's mean as its number of tracklets says; see `learn`."""
_BLOCK = 2**16  # rows that are worked on at a time: little is held besides what comes in and goes out


@dataclass(frozen=True)
class Normalization:
    """What was learnt from n rows of d features and G groups, which are cameras or videos.

    Attributes:
      means: [G + 1, d] float32, of the groups' rows and, last, of all rows; so group -1 stands for one never seen.
      matrix: [d, d] float32 by which rows without their group's mean are multiplied; None: nothing varies within
        tracklets.
    """

    means: np.ndarray
    matrix: np.ndarray | None

    def __call__(self, rows: np.ndarray, group: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Makes rows comparable.

        Args:
          rows: [n, d] float32 of unit length.
          group: [n] int64, 0 .. G-1, or -1: one that was not learnt from.
          out: where the result goes; it may be `rows`. None: into memory of its own.

        Returns:
          [n, d] float32 of unit length; a row that is its group's mean becomes 0.
        """
        result = np.empty_like(rows) if out is None else out
        for block, found in _centered(rows, group, self.means):
            result[block] = cosine.unit(found if self.matrix is None else found @ self.matrix, np.float32)
        return result

    def with_means_of(self, rows: np.ndarray, group: np.ndarray) -> Normalization:
        """The same matrix with the means of other rows and groups."""
        return replace(self, means=_means_and_last(rows, group))


def learn(
    rows: np.ndarray, group: np.ndarray, tracklet: np.ndarray, shrinkage: float, trust: float = TRUST
) -> Normalization:
    """Learns group means and the spread within tracklets.

    Args:
      rows: [n, d] float32 of unit length.
      group: [n] int64, 0 .. G-1.
      tracklet: [n] int64, 0 .. T-1.
      shrinkage: how much of an even spread is mixed into the spread within tracklets before it is divided by, > 0. It
        grows by as much again for every d differences that there are too few: a spread that was seen in few rows is
        that of these rows, and would pull them together.
      trust: how many times as sure of a group's mean as its number of tracklets says, > 0: what is left of a camera is
        in all of its pairs, what is taken from people only in theirs.
    """
    of_tracklet = np.zeros((int(tracklet.max(initial=-1)) + 1, rows.shape[1]), np.float32)
    np.add.at(of_tracklet, tracklet, rows)
    of_tracklet /= _counts(tracklet)
    within = np.zeros((rows.shape[1],) * 2)
    for block in _blocks(len(rows)):
        apart = rows[block] - of_tracklet[tracklet[block]]
        within += apart.T @ apart
    freedom = max(len(rows) - len(np.unique(tracklet)), 1)
    matrix = _evening(within, shrinkage * (1 + rows.shape[1] / freedom))
    return Normalization(_drawn_together(_means_and_last(rows, group), of_tracklet, group, tracklet, trust), matrix)


def _drawn_together(
    means: np.ndarray, of_tracklet: np.ndarray, group: np.ndarray, tracklet: np.ndarray, trust: float
) -> np.ndarray:
    """[G + 1, d] means as far as they are more than the few people that a group shows; the last stays.

    The mean of a group is drawn to that of all rows, by as much of its distance as the spread of tracklets about it
    explains (empirical Bayes; James and Stein, 1961), and `trust` times less: with a hundred people hardly at all, with
    three a lot.
    """
    own, whole = means[:-1], means[-1]
    if not len(own):
        return means
    there, first = np.unique(tracklet, return_index=True)
    home = group[first]
    count = np.maximum(np.bincount(home, minlength=len(own)), 1)
    within = np.square(of_tracklet[there] - own[home]).sum() / max(len(there) - len(own), 1)
    between = max(np.square(own - whole).sum(axis=1).mean() - within * (1 / count).mean(), 0)
    share = between / np.maximum(between + within / (trust * count), np.finfo(np.float32).tiny)
    return np.concatenate([(whole + share[:, None] * (own - whole)).astype(np.float32), whole[None]])


def _evening(within: np.ndarray, shrinkage: float) -> np.ndarray | None:
    """[d, d] matrix that makes the spread `within` even, as far as `shrinkage` lets it; None where there is none."""
    spread, axes = np.linalg.eigh(within)
    spread = np.maximum(spread, 0)
    even = spread.mean() if len(spread) else 0
    return (axes / np.sqrt(spread / even + shrinkage)).astype(np.float32) if even > 0 else None


def _centered(rows: np.ndarray, group: np.ndarray, means: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (which, these rows without their groups' means)."""
    for block in _blocks(len(rows)):
        yield block, rows[block] - means[group[block]]


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]


def _means_and_last(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """[G + 1, d] means of groups, 0 for those that nobody has, and of all rows."""
    total = np.zeros((int(group.max(initial=-1)) + 1, rows.shape[1]), np.float32)
    np.add.at(total, group, rows)
    whole = rows.mean(axis=0, dtype=np.float64).astype(np.float32) if len(rows) else np.zeros(rows.shape[1], np.float32)
    return np.concatenate([total / _counts(group), whole[None]])


def _counts(label: np.ndarray) -> np.ndarray:
    return np.maximum(np.bincount(label), 1).astype(np.float32)[:, None]

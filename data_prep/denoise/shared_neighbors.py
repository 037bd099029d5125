"""Identities by the company that images keep: average linkage of shared neighborhoods over the whole data set.

One clustering decides for all three levels; they are its scopes. Level 1 lets go what ends up elsewhere than most of
its tracklet, level 2 is its outcome within every video, level 3 the whole. What a tracker put together starts out as
alike, by `LOYALTY` times the limit: an image leaves its tracklet for a better home, not for being odd.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cion_jax.neighbors import cosine, linkage
from cion_jax.neighbors.labels import numbered
from cion_jax.neighbors.linkage import Pairs
from cion_jax.neighbors.reciprocal import overlaps
from data_prep.denoise import nearest_member
from data_prep.denoise.normalize import normalize
from data_prep.denoise.per_video import Levels

LIMIT = 0.42  # least mean overlap where nothing is calibrated
LOYALTY = 1.2


@dataclass(frozen=True)
class Nodes:
    """What is clustered: images, or parts of long tracklets.

    Attributes:
      rows: [n, d] float32 means, L2-normalized.
      weight: [n] number of images.
      video: [n] int64.
      tracklet: [n] int64, numbered over the data set.
      box_known: [n] bool; where False, two crops on one frame that look alike count as one person found twice.
    """

    rows: np.ndarray
    weight: np.ndarray
    video: np.ndarray
    tracklet: np.ndarray
    box_known: np.ndarray

    def normalized(self) -> Nodes:
        """The same nodes with `normalize.normalize`d rows."""
        return replace(self, rows=normalize(self.rows, self.video, self.tracklet))


@dataclass(frozen=True)
class Outcome:
    """The clustering and what its limit was chosen from.

    Attributes:
      identity: [n] int64 of every node, numbered by the first.
      limit: least mean overlap of two groups that merge.
      same: [S] for nodes that share their tracklet with others, the overlap with the nearest of them.
      other: [S] overlaps of nodes that were seen together.
    """

    identity: np.ndarray
    limit: float
    same: np.ndarray
    other: np.ndarray


def cluster(nodes: Nodes, cannot: Pairs, met: Pairs, calibrated: bool) -> Outcome:
    """Clusters nodes.

    Args:
      nodes: all of the data set.
      cannot: nodes that must not become one identity.
      met: nodes known to be of different people, for the calibration.
      calibrated: the limit is half way between the usual overlap of tracklet mates and that of people who met; else
        it is `LIMIT`.
    """
    count = len(nodes.rows)
    pairs, overlap = overlaps(nodes.rows)
    mates = _mates(nodes.tracklet)
    found = _looked_up(pairs, overlap, mates, count)
    best = np.zeros(count)
    for ends in mates:
        np.maximum.at(best, ends, found)
    same = best[np.unique(np.concatenate(mates))]
    other = _looked_up(pairs, overlap, met, count)
    limit = halfway(same, other) if calibrated else LIMIT
    together = _looked_up(pairs, overlap, cannot, count)
    keep = (together < limit) | (nodes.box_known[cannot[0]] & nodes.box_known[cannot[1]])
    apart = cannot[0][keep], cannot[1][keep]
    joined = np.concatenate([pairs[0], mates[0]]), np.concatenate([pairs[1], mates[1]])
    loyal = np.concatenate([overlap, np.full(len(mates[0]), LOYALTY * limit)])
    (i, j), similarity = linkage.combined(joined, loyal, count, np.add)
    return Outcome(linkage.average(nodes.weight, (i, j), similarity, limit, apart), limit, same, other)


def halfway(same: np.ndarray, other: np.ndarray) -> float:
    """The limit half way between two medians; no values count as 1 (same) and 0 (other)."""
    high = float(np.median(same)) if len(same) else 1.0
    low = float(np.median(other)) if len(other) else 0.0
    return max((high + low) / 2, LIMIT / 2)


def levels(features: np.ndarray, tracklet: np.ndarray, identity: np.ndarray) -> Levels:
    """What the clustering did to one video, in terms of levels 1 and 2.

    An image whose identity is not that of most images of its tracklet (of equally many the earliest) has left it, in
    round 1. It moves to the nearest tracklet of the video that mostly is of its identity; where there is none, it is
    discarded from the video.

    Args:
      features: [m, d] of the video.
      tracklet: [m] int64, 0 .. T-1, in order.
      identity: [m] int64 of the whole clustering.
    """
    count = int(tracklet.max(initial=-1)) + 1
    home = usual(tracklet, identity, count)
    kept = identity == home[tracklet]
    totals = cosine.centroids([(features, np.where(kept, tracklet, -1))], count)
    means = cosine.unit(totals)
    x = cosine.unit(features)
    moved, nearest = tracklet.copy(), np.full(len(tracklet), np.nan)
    for row in np.flatnonzero(~kept):
        apart = cosine.distance(means @ x[row])
        apart[tracklet[row]] = np.inf
        homes = np.flatnonzero(home == identity[row])
        moved[row] = homes[apart[homes].argmin()] if len(homes) else -1
        nearest[row] = apart[moved[row]] if len(homes) else apart.min(initial=np.inf, where=np.isfinite(apart))
    nearest[np.isinf(nearest)] = np.nan
    apart = _to_others(x, tracklet, kept, totals)
    own = _numbered(np.where(moved >= 0, identity, -1))
    joined = nearest_member.within_video(features, moved, own)
    return Levels((~kept).astype(np.int32), apart, moved, nearest, own, joined)


def _mates(tracklet: np.ndarray) -> Pairs:
    """Pairs of nodes of one tracklet; the nodes of a tracklet lie together."""
    pieces = [np.zeros((2, 0), np.int64)]
    for step in range(1, len(tracklet)):
        first = np.flatnonzero(tracklet[:-step] == tracklet[step:])
        if not len(first):
            break
        pieces.append(np.stack([first, first + step]))
    i, j = np.concatenate(pieces, axis=1)
    return i, j


def _looked_up(pairs: Pairs, values: np.ndarray, wanted: Pairs, count: int) -> np.ndarray:
    """Values of the wanted pairs (i < j), 0 where they are not listed."""
    keys = pairs[0] * count + pairs[1]
    order = np.argsort(keys)
    keys = np.append(keys[order], -1)
    asked = wanted[0] * count + wanted[1]
    at = np.searchsorted(keys[:-1], asked)
    return np.where(keys[at] == asked, np.append(values[order], 0)[at], 0)


def usual(tracklet: np.ndarray, identity: np.ndarray, count: int) -> np.ndarray:
    """[count] the identity that most images of every tracklet have; of equally many that of the earliest image."""
    names, first, _, sizes = np.unique(
        np.stack([tracklet, identity]), axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes, names[0]))
    best = order[np.searchsorted(names[0][order], np.arange(count))]
    return names[1][best]


def _to_others(x: np.ndarray, tracklet: np.ndarray, kept: np.ndarray, means: np.ndarray) -> np.ndarray:
    """[m] distance of every image to the mean of the kept others of its tracklet, nan where there is none."""
    size = np.bincount(tracklet[kept], minlength=len(means))
    rest = means[tracklet] * size[tracklet, None] - x * kept[:, None]
    others = size[tracklet] - kept
    apart = cosine.distance(np.einsum("md,md->m", cosine.unit(rest), x))
    return np.where(others > 0, apart, np.nan)


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels 0, 1, ... by first appearance; -1 stays."""
    inside = labels >= 0
    result = np.full(len(labels), -1)
    result[inside] = numbered(labels[inside])
    return result

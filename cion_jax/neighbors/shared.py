"""Clusters by shared neighbors: average linkage of how much neighborhoods overlap, times how alike two are themselves.

How many neighbors there are to share, and from which similarity on groups merge, follows from how large clusters turn
out to be. No threshold is fitted to a data set or a network.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import scipy.sparse as sp

from cion_jax.common.bounds import COUNT, SHARE, between, positive
from cion_jax.neighbors import cosine, linkage, normalization
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from cion_jax.neighbors.reciprocal import overlaps
from cion_jax.neighbors.search import EXACT, nearest, with_self

STEPS = (4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""Numbers of neighbors that are tried, in this order."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What decides over clusters.

    Attributes:
      k1: the most neighbors that are tried.
      margin: so many times as many nodes as neighbors the identity of the median image must have, or there are fewer.
      patience: so many steps in a row that fail end the search for the number of neighbors.
      k2: neighborhoods that are averaged, the own one included.
      agreement: share of a neighbor's own half set that must be shared before it is taken in.
      min_overlap: smaller overlaps of two neighborhoods count as none.
      threshold: two groups merge from a mean similarity of this, divided by the square root of the number of
        neighbors, on: larger identities are looser.
      strangers: share of the pairs of people who met, by their boxes, that may be as similar as the threshold; it rises
        until they are no more. Features that tell people apart badly need it.
      likeness: cosine from which on two sub-tracklets are as alike as can be, where it is not calibrated.
      least_likeness: the calibrated one is at least this, however little the images of a tracklet are alike.
      tracklet_prior: what a tracker put together starts out with this times the threshold as added similarity.
    """

    k1: Annotated[int, between(1, 10_000)] = 32
    margin: Annotated[float, positive(100)] = 1.1
    patience: Annotated[int, between(1, 100)] = 2
    k2: Annotated[int, between(1, 10_000)] = 6
    agreement: Annotated[float, SHARE] = 2 / 3
    min_overlap: Annotated[float, SHARE] = 0.05
    threshold: Annotated[float, positive(100)] = 0.85
    strangers: Annotated[float, SHARE] = 0.03
    likeness: Annotated[float, positive(1)] = 0.65
    least_likeness: Annotated[float, positive(1)] = 0.2
    tracklet_prior: Annotated[float, between(0, 1000)] = 1.2


@dataclass(frozen=True)
class Search:
    """Up to which size everything is compared with everything, and what is done beyond.

    Attributes:
      exact_rows: rows up to which nearest neighbors and overlaps are exact.
      neighbor_sample: beyond that, nodes from whose surroundings the number of shared neighbors is found.
      overlaps: beyond that, the overlap of two neighborhoods is kept where it is among the largest of one of the two;
        this many of them for every neighbor.
      overlap_share: beyond that, overlaps below this share of the threshold count as none.
    """

    exact_rows: Annotated[int, COUNT] = EXACT
    neighbor_sample: Annotated[int, between(1, 10**9)] = 256
    overlaps: Annotated[int, COUNT] = 3
    overlap_share: Annotated[float, SHARE] = 0.36


@dataclass(frozen=True)
class Nodes:
    """What is clustered: images, or parts of tracklets.

    Attributes:
      rows: [n, d] float32 means, L2-normalized.
      weight: [n] number of images.
      video: [n] int64, or camera.
      tracklet: [n] int64, numbered over the data set; the nodes of one lie together.
      has_box: [n] bool; where False, two crops on one frame that look alike count as one person found twice.
    """

    rows: np.ndarray
    weight: np.ndarray
    video: np.ndarray
    tracklet: np.ndarray
    has_box: np.ndarray

    def normalized(self, shrinkage: float, trust: float, out: np.ndarray | None = None) -> Nodes:
        """The same nodes with rows that were made comparable across videos (`normalization.learn`).

        Args:
          shrinkage, trust: as `normalization.learn` takes them.
          out: where the rows go; it may be `rows`. None: into memory of its own.
        """
        learned = normalization.learn(self.rows, self.video, self.tracklet, shrinkage, trust)
        return replace(self, rows=learned(self.rows, self.video, out))


@dataclass(frozen=True)
class Found:
    """A clustering.

    Attributes:
      label: [n] int64 clusters, numbered by their first node.
      neighbors: how many of them a node shared with others.
      threshold: least mean similarity of two groups that merged.
      same: [S] for what shares its tracklet with others, the similarity with the nearest of them.
      other: [S] similarities of what is known to be of different people.
    """

    label: np.ndarray
    neighbors: int
    threshold: float
    same: np.ndarray
    other: np.ndarray


@dataclass(frozen=True)
class Apart:
    """Pairs of nodes known to be of different people.

    Attributes:
      cannot: they never end in one cluster.
      cooccurring: their similarities are reported, nothing else.
      met: so surely different that no more than `strangers` of them may be as similar as the threshold.
    """

    cannot: Pairs = NO_PAIRS
    cooccurring: Pairs = NO_PAIRS
    met: Pairs = NO_PAIRS

    def among(self, number: np.ndarray) -> Apart:
        """Those with both ends inside, renumbered: `number` [n] is a node's new one, -1 outside."""
        return Apart(*(linkage.between(number, pairs) for pairs in (self.cannot, self.cooccurring, self.met)))


def cluster(nodes: Nodes, apart: Apart, own: Settings, search: Search, calibrate: bool = True) -> Found:
    """Clusters nodes with as many neighbors as clusters have nodes.

    Lists of neighbors that are longer than clusters are large fill with strangers; shorter ones do not hold a cluster
    together. So k rises, from one of `STEPS` to the next, for as long as the cluster of the median image has `margin`
    times k nodes or more; `patience` steps in a row that fail end the search. Beyond `search.exact_rows` nodes that is
    found out around a sample of them.

    Args:
      nodes: all of the data set.
      apart: which are known to be of different people.
      own: in force.
      search: in force.
      calibrate: two nodes are as alike as can be from the cosine that is usual between a node and the nearest of its
        tracklet on; where tracklets have one node, the nearest of all. False: from `own.likeness` on.
    """
    count = len(nodes.rows)
    steps = [k for k in STEPS if k <= own.k1 and k < count] or [min(own.k1, max(count - 1, 1))]
    near = nearest(nodes.rows, steps[-1], search.exact_rows) if count > 2 else np.zeros((count, 0), int)
    alike = (likeness(nodes, near, own.least_likeness) if calibrate else None) or own.likeness
    graph = _Graph(nodes, near, apart, alike)
    if count > search.exact_rows:
        part, sampled = _around_a_sample(graph, search.neighbor_sample)
        steps = [_widest(part, steps, sampled, own, search).neighbors]
    return _widest(graph, steps, nodes.weight, own, search)


@dataclass(frozen=True)
class _Graph:
    """Nodes, the [n, k] nearest others of each, pairs of different people, and the cosine of what is fully alike."""

    nodes: Nodes
    near: np.ndarray
    apart: Apart
    alike: float


def _widest(graph: _Graph, steps: Sequence[int], weight: np.ndarray, own: Settings, search: Search) -> Found:
    """The clustering with the most neighbors that clusters are large enough for.

    Args:
      graph: what is clustered.
      steps: numbers of neighbors, rising.
      weight: [n] of every node where the median image is looked for.
      own: in force.
      search: in force.
    """
    of_one = _of_one_tracklet(graph.nodes.tracklet)
    found, failed = _clustered(graph, of_one, steps[0], own, search), 0
    for k in steps[1:]:
        tried = _clustered(graph, of_one, k, own, search)
        if usual_size(tried.label, weight) >= own.margin * k:
            found, failed = tried, 0
        elif (failed := failed + 1) == own.patience:
            break
    return found


def _around_a_sample(graph: _Graph, most: int) -> tuple[_Graph, np.ndarray]:
    """Some nodes and their nearest as a data set of its own, and [n] the weight of those, 0 of their neighbors.

    Whether identities are large enough for a number of neighbors can be told from some of them, as long as these are
    there whole.
    """
    nodes, count = graph.nodes, len(graph.nodes.rows)
    chosen = np.random.default_rng(0).choice(count, min(most, count), replace=False)
    inside = np.unique(np.concatenate([chosen, graph.near[chosen].ravel()]))
    number = np.full(count, -1)
    number[inside] = np.arange(len(inside))
    part = Nodes(*(of[inside] for of in (nodes.rows, nodes.weight, nodes.video, nodes.tracklet, nodes.has_box)))
    weight = np.where(np.isin(inside, chosen), part.weight, 0)
    near = nearest(part.rows, graph.near.shape[1], len(inside))
    return _Graph(part, near, graph.apart.among(number), graph.alike), weight


def _clustered(graph: _Graph, of_one: Pairs, k: int, own: Settings, search: Search) -> Found:
    """One clustering with k neighbors; hardly any pair of people who met is as similar as the threshold."""
    nodes, apart, count = graph.nodes, graph.apart, len(graph.nodes.rows)
    pairs, similarity = similarities(nodes.rows, graph.near[:, :k], own, graph.alike, search)
    found = _looked_up(pairs, similarity, of_one, count)
    best = np.zeros(count)
    for ends in of_one:
        np.maximum.at(best, ends, found)
    same = best[np.unique(np.concatenate(of_one))]
    other = _looked_up(pairs, similarity, apart.cooccurring, count)
    threshold = _threshold(own, k)
    if len(apart.met[0]):
        met = _looked_up(pairs, similarity, apart.met, count)
        threshold = max(threshold, float(np.quantile(met, 1 - own.strangers)))
    together = _looked_up(pairs, similarity, apart.cannot, count)
    sure = nodes.has_box[apart.cannot[0]] & nodes.has_box[apart.cannot[1]]
    cannot = tuple(ends[(together < threshold) | sure] for ends in apart.cannot)
    (i, j), total = _with_prior(pairs, similarity, of_one, own.tracklet_prior * threshold, count)
    del pairs, similarity  # of millions of nodes these are gibibytes
    label = linkage.average(nodes.weight, (i, j), total, threshold, (cannot[0], cannot[1]))
    return Found(label, k, threshold, same, other)


def _with_prior(
    pairs: Pairs, similarity: np.ndarray, of_one: Pairs, prior: float, count: int
) -> tuple[Pairs, np.ndarray]:
    """Similarities with what nodes of one tracklet start out with."""
    i, j = (np.concatenate([ends, own.astype(ends.dtype)]) for ends, own in zip(pairs, of_one, strict=True))
    whole = np.concatenate([similarity, np.full(len(of_one[0]), prior, similarity.dtype)])
    return linkage.combined((i, j), whole, count, np.add)


def similarities(
    rows: np.ndarray, near: np.ndarray, own: Settings, alike: float, search: Search
) -> tuple[Pairs, np.ndarray]:
    """Pairs i < j whose neighborhoods overlap, and the overlap times how alike the two are themselves.

    Overlaps are made of ranks: where few are there, strangers share neighbors too, and only their distance tells. Of
    many rows only the largest overlaps are kept, in single precision.

    Args:
      rows: [n, d] float32 of unit length.
      near: [n, k] nearest others, nearest first.
      own: settings.
      alike: cosine from which on two are as alike as can be; a cosine of 0 or less makes similarity 0.
      search: what of many rows is kept.
    """
    k = near.shape[1]
    if len(rows) <= search.exact_rows:
        pairs, overlap = overlaps(rows, with_self(near), own.k2, own.agreement, own.min_overlap)
    else:
        least = max(own.min_overlap, search.overlap_share * _threshold(own, k))
        most = search.overlaps * k
        pairs, overlap = overlaps(rows, with_self(near), own.k2, own.agreement, least, most, np.float32)
    return pairs, overlap * np.clip(cosine.of_pairs(rows, *pairs) / alike, 0, 1).astype(overlap.dtype)


def _threshold(own: Settings, k: int) -> float:
    """The mean similarity from which on two groups merge, with k neighbors."""
    return own.threshold / math.sqrt(max(k, 1))


def likeness(nodes: Nodes, near: np.ndarray, least: float) -> float | None:
    """The median cosine of a node and the nearest of its tracklet; where all are alone, of a node and its nearest.

    Args:
      nodes: all of the data set.
      near: [n, k] nearest others, nearest first.
      least: what is returned at least.

    Returns:
      None where there is nobody else.
    """
    of_one = _of_one_tracklet(nodes.tracklet)
    best = np.full(len(nodes.rows), -np.inf)
    if len(of_one[0]):
        found = cosine.of_pairs(nodes.rows, *of_one)
        for ends in of_one:
            np.maximum.at(best, ends, found)
    elif near.shape[1]:
        best = cosine.of_pairs(nodes.rows, np.arange(len(near)), near[:, 0])
    known = best[np.isfinite(best)]
    return max(float(np.median(known)), least) if len(known) else None


def usual_size(label: np.ndarray, weight: np.ndarray) -> int:
    """How many nodes the cluster of the median image has."""
    size = np.bincount(label)[label]
    order = np.argsort(size, kind="stable")
    return int(size[order[np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)]])


def _of_one_tracklet(tracklet: np.ndarray) -> Pairs:
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
    if not len(wanted[0]):
        return np.zeros(0)
    table = sp.coo_array((values, pairs), shape=(count, count)).tocsr()
    return table[wanted]

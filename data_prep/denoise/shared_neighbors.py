"""Identities by shared neighbors: average linkage of shared neighborhoods over the whole data set.

Two sub-tracklets are as similar as their neighborhoods overlap, times how alike they are themselves. How many neighbors
there are to share, and from which similarity on groups merge, follows from how large identities turn out to be.

One clustering decides for all three levels; they are its scopes. Level 1 lets go what ends up elsewhere than most of
its tracklet, level 2 is what it found within every video, level 3 the whole. What a tracker put together starts out as
alike, by `tracklet_prior` times the threshold: an image leaves its tracklet for a better home, not for being odd.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from cion_jax.neighbors import cosine, linkage
from cion_jax.neighbors.labels import numbered
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from cion_jax.neighbors.reciprocal import overlaps
from cion_jax.neighbors.search import nearest, with_self
from data_prep.denoise import nearest_member, sub_tracklets
from data_prep.denoise.certificate import certify, confidences
from data_prep.denoise.evidence import evidence
from data_prep.denoise.levels import Levels
from data_prep.denoise.method import METHODS, Clustering, DataSet
from data_prep.denoise.normalize import normalize
from data_prep.denoise.settings import DEFAULT_SEARCH, Denoising, SearchSettings, SharedNeighborSettings, Thresholds

STEPS = (4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""Numbers of neighbors that are tried, in this order."""
LEAST_TRACKLETS = 10
"""Fewer say nothing about how right the identities are."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Nodes:
    """What is clustered: images, or sub-tracklets of long tracklets.

    Attributes:
      rows: [n, d] float32 means, L2-normalized.
      weight: [n] number of images.
      video: [n] int64.
      tracklet: [n] int64, numbered over the data set.
      has_box: [n] bool; where False, two crops on one frame that look alike count as one person found twice.
    """

    rows: np.ndarray
    weight: np.ndarray
    video: np.ndarray
    tracklet: np.ndarray
    has_box: np.ndarray

    def normalized(self, own: SharedNeighborSettings, out: np.ndarray | None = None) -> Nodes:
        """The same nodes with `normalize.normalize`d rows, which go to `out` where that is given."""
        return replace(self, rows=normalize(self.rows, self.video, self.tracklet, own.shrinkage, own.trust, out))


def cluster(nodes: Nodes, cannot: Pairs, cooccurring: Pairs, settings: Denoising) -> Clustering:
    """Clusters nodes with as many neighbors as identities have nodes.

    Lists of neighbors that are longer than identities are large fill with strangers; shorter ones do not hold an
    identity together. So k rises, from one of `STEPS` to the next, for as long as the identity of the median image has
    `margin` times k nodes or more; `patience` steps in a row that fail end the search. Beyond `search.exact_rows` nodes
    that is found out around a sample of them.

    Args:
      nodes: all of the data set.
      cannot: nodes that must not become one identity.
      cooccurring: nodes known to be of different people, for the report.
      settings: in force. With `calibrate` two nodes are as alike as can be from the usual cosine of a node and the
        nearest of its tracklet on.
    """
    count, own = len(nodes.rows), settings.shared_neighbors
    steps = [k for k in STEPS if k <= own.k1 and k < count] or [min(own.k1, max(count - 1, 1))]
    near = nearest(nodes.rows, steps[-1], settings.search.exact_rows) if count > 2 else np.zeros((count, 0), int)
    graph = _Graph(nodes, near, cannot, cooccurring)
    if count > settings.search.exact_rows:
        part, sampled = _around_a_sample(graph, settings.search.neighbor_sample)
        k, _ = _widest(part, steps, sampled, settings)
        steps = [k]
    k, found = _widest(graph, steps, nodes.weight, settings)
    _LOG.info("identities of %d sub-tracklets with %d neighbors, from similarity %.3f on", count, k, found.threshold)
    return found


@dataclass(frozen=True)
class _Graph:
    """Nodes, the [n, k] nearest others of each, and which pairs are known to be of different people."""

    nodes: Nodes
    near: np.ndarray
    cannot: Pairs
    cooccurring: Pairs


def _widest(graph: _Graph, steps: Sequence[int], weight: np.ndarray, settings: Denoising) -> tuple[int, Clustering]:
    """The largest number of neighbors that identities are large enough for, and the clustering with it.

    Args:
      graph: what is clustered.
      steps: numbers of neighbors, rising.
      weight: [n] of every node where the median image is looked for.
      settings: in force.
    """
    nodes, own = graph.nodes, settings.shared_neighbors
    of_one = _of_one_tracklet(nodes.tracklet)
    alike = (likeness(nodes.rows, of_one, own.least_likeness) if settings.calibrate else None) or own.likeness
    met = _met(nodes.has_box, graph.cooccurring, settings)
    found, failed = None, 0
    for k in steps:
        pairs, similarity = similarities(nodes.rows, graph.near[:, :k], own, alike, settings.search)
        tried = _clustered(nodes, pairs, similarity, of_one, graph.cannot, graph.cooccurring, met, k, own)
        del pairs, similarity
        if found is None or usual_size(tried.identity, weight) >= own.margin * k:
            found, failed = (k, tried), 0
        elif (failed := failed + 1) == own.patience:
            break
    assert found is not None  # there is a step
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
    return _Graph(part, near, _among(number, graph.cannot), _among(number, graph.cooccurring)), weight


def _among(number: np.ndarray, pairs: Pairs) -> Pairs:
    """Pairs with both ends inside, renumbered; -1 is outside."""
    i, j = number[pairs[0]], number[pairs[1]]
    inside = (i >= 0) & (j >= 0)
    return i[inside], j[inside]


def _clustered(
    nodes: Nodes,
    pairs: Pairs,
    similarity: np.ndarray,
    of_one: Pairs,
    cannot: Pairs,
    cooccurring: Pairs,
    met: Pairs,
    k: int,
    own: SharedNeighborSettings,
) -> Clustering:
    """One clustering with k neighbors; hardly any pair of `met` is as similar as the threshold."""
    count = len(nodes.rows)
    found = _looked_up(pairs, similarity, of_one, count)
    best = np.zeros(count)
    for ends in of_one:
        np.maximum.at(best, ends, found)
    same = best[np.unique(np.concatenate(of_one))]
    other = _looked_up(pairs, similarity, cooccurring, count)
    threshold = _threshold(own, k)
    if len(met[0]):
        threshold = max(threshold, float(np.quantile(_looked_up(pairs, similarity, met, count), 1 - own.strangers)))
    together = _looked_up(pairs, similarity, cannot, count)
    keep = (together < threshold) | (nodes.has_box[cannot[0]] & nodes.has_box[cannot[1]])
    apart = cannot[0][keep], cannot[1][keep]
    (i, j), total = _with_prior(pairs, similarity, of_one, own.tracklet_prior * threshold, count)
    del pairs, similarity  # of millions of nodes these are gibibytes
    identity = linkage.average(nodes.weight, (i, j), total, threshold, apart)
    return Clustering(identity, threshold, same, other)


def _met(has_box: np.ndarray, cooccurring: Pairs, settings: Denoising) -> Pairs:
    """Pairs that are beyond doubt of two people, as their boxes say; none where they are too few to tell a quantile."""
    sure = has_box[cooccurring[0]] & has_box[cooccurring[1]]
    enough = settings.calibrate and np.count_nonzero(sure) >= settings.calibration.min_pairs
    return (cooccurring[0][sure], cooccurring[1][sure]) if enough else NO_PAIRS


def _with_prior(
    pairs: Pairs, similarity: np.ndarray, of_one: Pairs, prior: float, count: int
) -> tuple[Pairs, np.ndarray]:
    """Similarities with what nodes of one tracklet start out with."""
    i, j = (np.concatenate([ends, own.astype(ends.dtype)]) for ends, own in zip(pairs, of_one, strict=True))
    whole = np.concatenate([similarity, np.full(len(of_one[0]), prior, similarity.dtype)])
    return linkage.combined((i, j), whole, count, np.add)


def similarities(
    rows: np.ndarray, near: np.ndarray, own: SharedNeighborSettings, alike: float, search: SearchSettings
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


def _threshold(own: SharedNeighborSettings, k: int) -> float:
    """The mean similarity from which on two groups merge, with k neighbors."""
    return own.threshold / math.sqrt(max(k, 1))


def likeness(rows: np.ndarray, of_one: Pairs, least: float) -> float | None:
    """The median cosine of a row and the nearest of its tracklet, at least `least`; None: all are alone."""
    best = np.full(len(rows), -np.inf)
    found = cosine.of_pairs(rows, *of_one)
    for ends in of_one:
        np.maximum.at(best, ends, found)
    known = best[np.isfinite(best)]
    return max(float(np.median(known)), least) if len(known) else None


def usual_size(identity: np.ndarray, weight: np.ndarray) -> int:
    """How many nodes the identity of the median image has."""
    size = np.bincount(identity)[identity]
    order = np.argsort(size, kind="stable")
    return int(size[order[np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)]])


def levels(
    features: np.ndarray, tracklet: np.ndarray, identity: np.ndarray, search: SearchSettings = DEFAULT_SEARCH
) -> Levels:
    """What the clustering did to one video, in terms of levels 1 and 2.

    An image whose identity is not that of most images of its tracklet (of equally many the earliest) has left it, in
    round 1. It moves to the nearest tracklet of the video that mostly is of its identity; where there is none, it is
    discarded from the video.

    Args:
      features: [m, d] of the video.
      tracklet: [m] int64, 0 .. T-1, in order.
      identity: [m] int64 of the whole clustering.
      search: in force.
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
    joined = nearest_member.within_video(features, moved, own, search.group_sample)
    return Levels((~kept).astype(np.int32), apart, moved, nearest, own, joined)


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


class SharedNeighbors:
    """The method of this module."""

    options = frozenset({"normalize"})
    decides: Mapping[str, str] = {"level1": "shared_neighbors", "level2": "shared_neighbors"}
    caveats = ""
    stage, keeps = "dividing tracklets", "sub_tracklets"

    def one_video(
        self,
        features: np.ndarray,
        tracklet: np.ndarray,
        cannot: Callable[[], Pairs],
        settings: Denoising,
        thresholds: Thresholds,
    ) -> Mapping[str, np.ndarray]:
        """`sub_tracklet` [m] of every image, and `means` [s, d] float32 of these, L2-normalized."""
        own = settings.shared_neighbors
        number = sub_tracklets.divide(features, tracklet, own.short_tracklet, own.sub_tracklets)
        means = cosine.unit(cosine.centroids([(features, number)], int(number.max(initial=-1)) + 1))
        return {"sub_tracklet": number, "means": means.astype(np.float32)}

    def all_videos(self, data: DataSet, settings: Denoising, thresholds: Thresholds) -> Clustered:
        """Clusters the sub-tracklets of all videos."""
        number, nodes = _nodes(data)
        cooccurring = data.cannot_link(number)
        if settings.normalize:
            nodes = nodes.normalized(settings.shared_neighbors, out=nodes.rows)
        found = certified(nodes, cooccurring if settings.cannot_link else NO_PAIRS, cooccurring, settings)
        return Clustered(data, settings, found, found.identity[number], number)


def certified(nodes: Nodes, cannot: Pairs, cooccurring: Pairs, settings: Denoising) -> Clustering:
    """`cluster`, with an estimate of how right it is; what makes identities worse than the input is not applied."""
    found = cluster(nodes, cannot, cooccurring, settings)
    if not settings.shared_neighbors.certificate or len(np.unique(nodes.tracklet)) < LEAST_TRACKLETS:
        return found
    if len(nodes.rows) > settings.search.exact_rows:
        _LOG.warning(
            "how right the identities are is not estimated: %d sub-tracklets, at most %d (config.search.exact_rows)",
            len(nodes.rows),
            settings.search.exact_rows,
        )
        return found
    seen = evidence(nodes, found.identity, lambda rows: _again(nodes, rows, cannot, cooccurring, settings))
    estimate = certify(seen.values)
    if estimate.worse_than_input:
        _LOG.warning("no level is applied: the tracklets are better than the identities (%s)", estimate.told())
        return replace(found, identity=numbered(nodes.tracklet), certificate=estimate, applied=False)
    _LOG.info("estimated without labels: %s", estimate.told())
    confidence = confidences(found.identity, nodes.weight, seen.support, estimate.precision.value)
    return replace(found, certificate=estimate, confidence=confidence)


def _again(nodes: Nodes, rows: np.ndarray, cannot: Pairs, cooccurring: Pairs, settings: Denoising) -> np.ndarray:
    return cluster(replace(nodes, rows=rows), cannot, cooccurring, settings).identity


@dataclass(frozen=True)
class Clustered:
    """Identities by one clustering, [N] int64 `identity` and `node` of every image; a `method.Labeling`."""

    data: DataSet
    settings: Denoising
    clustering: Clustering
    identity: np.ndarray
    node: np.ndarray

    @property
    def confidence(self) -> np.ndarray | None:
        """[N] of every image; None where it is not estimated."""
        return None if self.clustering.confidence is None else self.clustering.confidence[self.node]

    def levels(self, video: int, features: np.ndarray) -> Levels:
        """What the clustering did to the video."""
        start, end, first = self.data.span(video)
        own = self.data.tracklet[start:end] - first
        return levels(features, own, self.identity[start:end], self.settings.search)

    def identities(self, levels: Levels, means: np.ndarray) -> np.ndarray:
        """The clustering's, but for images that left their tracklet and are alone."""
        lost = (levels.round > 0) & (np.bincount(self.identity)[self.identity] == 1)
        return np.where(lost, -1, self.identity)


def _nodes(data: DataSet) -> tuple[np.ndarray, Nodes]:
    """[N] the node of every image, and the nodes."""
    rows = data.room((len(data.tracklet), data.width), np.float32)  # as many as could be; the rest is never touched
    number, count, counts = [np.zeros(0, np.int64)], 0, []
    for video in range(len(data.videos)):
        kept = data.kept(video, SharedNeighbors.keeps)
        number.append(kept["sub_tracklet"] + count)
        counts.append(len(kept["means"]))
        rows[count : count + counts[-1]] = kept["means"]
        count += counts[-1]
    whole = np.concatenate(number)
    _, first = np.unique(whole, return_index=True)
    video_of = np.repeat(np.arange(len(data.videos)), counts)
    return whole, Nodes(rows[:count], np.bincount(whole), video_of, data.tracklet[first], data.has_box[first])


METHODS.register("shared_neighbors", SharedNeighbors())

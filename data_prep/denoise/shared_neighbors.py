"""Identities by shared neighbors: average linkage of shared neighborhoods over the whole data set.

Two sub-tracklets are as similar as their neighborhoods overlap, times how alike they are themselves. How many neighbors
there are to share, and from which similarity on groups merge, follows from how large identities turn out to be.

One clustering decides for all three levels; they are its scopes. Level 1 lets go what ends up elsewhere than most of
its tracklet, level 2 is what it found within every video, level 3 the whole. What a tracker put together starts out as
alike, by `tracklet_prior` times the threshold: an image leaves its tracklet for a better home, not for being odd.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from cion_jax.neighbors import cosine, shared
from cion_jax.neighbors.labels import numbered
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from cion_jax.neighbors.shared import Nodes
from data_prep.denoise import nearest_member, sub_tracklets
from data_prep.denoise.certificate import certify, confidences
from data_prep.denoise.evidence import evidence
from data_prep.denoise.levels import Levels
from data_prep.denoise.method import METHODS, Clustering, DataSet
from data_prep.denoise.settings import DEFAULT_SEARCH, Denoising, SearchSettings, Thresholds

LEAST_TRACKLETS = 10
"""Fewer say nothing about how right the identities are."""

_LOG = logging.getLogger(__name__)


def cluster(nodes: Nodes, cannot: Pairs, cooccurring: Pairs, settings: Denoising) -> Clustering:
    """Clusters nodes (`shared.cluster`).

    Args:
      nodes: all of the data set.
      cannot: nodes that must not become one identity.
      cooccurring: nodes known to be of different people, for the report; where boxes make that certain, no more than
        `strangers` of them are as similar as the threshold.
      settings: in force.
    """
    apart = shared.Apart(cannot, cooccurring, _met(nodes.has_box, cooccurring, settings))
    found = shared.cluster(nodes, apart, settings.shared_neighbors, settings.search, settings.calibrate)
    _LOG.info(
        "identities of %d sub-tracklets with %d neighbors, from similarity %.3f on",
        len(nodes.rows),
        found.neighbors,
        found.threshold,
    )
    return Clustering(found.label, found.threshold, found.same, found.other)


def _met(has_box: np.ndarray, cooccurring: Pairs, settings: Denoising) -> Pairs:
    """Pairs that are beyond doubt of two people, as their boxes say; none where they are too few to tell a quantile."""
    sure = has_box[cooccurring[0]] & has_box[cooccurring[1]]
    enough = settings.calibrate and np.count_nonzero(sure) >= settings.calibration.min_pairs
    return (cooccurring[0][sure], cooccurring[1][sure]) if enough else NO_PAIRS


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
            nodes = nodes.normalized(settings.shared_neighbors.shrinkage, settings.shared_neighbors.trust, nodes.rows)
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

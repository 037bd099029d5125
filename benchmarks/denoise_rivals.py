"""What else makes identities of crops: clusterings of images and of tracklets, each over a range of thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from cion_jax.neighbors import cosine, reciprocal, search
from cion_jax.neighbors import jaccard as jaccard_distance
from cion_jax.neighbors.dbscan import dbscan as clusters

Labels = Iterator[tuple[float, np.ndarray]]
"""Thresholds and the [n] identities that they give."""

RECIPROCAL = 30  # neighbors, as unsupervised re-identification has it
AVERAGED = 6  # neighborhoods, the own one included
CORE = 4  # DBSCAN's least number of neighbors, its own row included
_DISTANCES = np.concatenate([np.arange(0.03, 0.36, 0.02), np.arange(0.40, 1.21, 0.05)])
_OVERLAPS = np.arange(0.20, 0.99, 0.03)
_LAST: dict = {}


@dataclass(frozen=True)
class Rival:
    """A name and what gives identities from unit rows [n, d], tracklets [n] and videos [n], at several thresholds."""

    name: str
    run: Callable[[np.ndarray, np.ndarray, np.ndarray], Labels]


def centroids(rows: np.ndarray, tracklet: np.ndarray, video: np.ndarray) -> Labels:
    """Average linkage of the centroids of tracklets by cosine distance."""
    means = _means(rows, tracklet)
    for threshold, labels in _average(1 - (means @ means.T).astype(np.float64), _DISTANCES):
        yield threshold, labels[tracklet]


def centroids_without_video(rows: np.ndarray, tracklet: np.ndarray, video: np.ndarray) -> Labels:
    """The same after every video's mean was subtracted."""
    return centroids(without_video(rows, video), tracklet, video)


def tracklets(rows: np.ndarray, tracklet: np.ndarray, video: np.ndarray) -> Labels:
    """Average linkage of tracklets on the k-reciprocal Jaccard distance of their centroids."""
    for threshold, labels in _average(_dense(jaccard(_means(rows, tracklet))), _OVERLAPS):
        yield threshold, labels[tracklet]


def tracklets_without_video(rows: np.ndarray, tracklet: np.ndarray, video: np.ndarray) -> Labels:
    """The same after every video's mean was subtracted."""
    return tracklets(without_video(rows, video), tracklet, video)


def images_without_video(rows: np.ndarray, tracklet: np.ndarray, video: np.ndarray) -> Labels:
    """Average linkage of images on the k-reciprocal Jaccard distance, after every video's mean was subtracted."""
    return _average(_dense(jaccard(without_video(rows, video))), _OVERLAPS)


def dbscan(rows: np.ndarray, tracklet: np.ndarray, video: np.ndarray) -> Labels:
    """DBSCAN of images on the k-reciprocal Jaccard distance; outliers stand alone."""
    distance = jaccard(rows)
    for eps in (0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7):
        yield eps, clusters(distance, eps, CORE)


def hdbscan(rows: np.ndarray, tracklet: np.ndarray, video: np.ndarray) -> Labels:
    """HDBSCAN of images on the k-reciprocal Jaccard distance, over its least cluster size."""
    from sklearn.cluster import HDBSCAN

    apart = _dense(jaccard(rows))
    apart = (apart + apart.T) / 2
    for least in (4, 8):
        yield (
            least,
            HDBSCAN(min_cluster_size=least, min_samples=CORE, metric="precomputed").fit_predict(apart),
        )


RIVALS = (
    Rival("average linkage of tracklets' centroids", centroids),
    Rival("average linkage of tracklets' centroids, video's mean removed", centroids_without_video),
    Rival("average linkage of tracklets, k-reciprocal Jaccard", tracklets),
    Rival("average linkage of tracklets, k-reciprocal Jaccard, video's mean removed", tracklets_without_video),
    Rival("DBSCAN of images, k-reciprocal Jaccard", dbscan),
    Rival("HDBSCAN of images, k-reciprocal Jaccard", hdbscan),
    Rival("average linkage of images, k-reciprocal Jaccard, video's mean removed", images_without_video),
)


def without_video(rows: np.ndarray, video: np.ndarray) -> np.ndarray:
    """[n, d] float32 unit rows from which the mean of their video was subtracted."""
    means = cosine.centroids([(rows, video)], int(video.max()) + 1)
    return cosine.unit(rows - means[video]).astype(np.float32)


def jaccard(rows: np.ndarray) -> sp.csr_array:
    """[n, n] k-reciprocal Jaccard distance, exact; 1 is not stored. That of the last rows is remembered."""
    if _LAST.get("rows") is not rows:
        few = min(RECIPROCAL, len(rows) - 1)
        near = search.with_self(search.nearest(rows, few))
        known = reciprocal.distributions(rows, near, round(few / 2) + 1, min(AVERAGED, few), strict=False)
        _LAST.update(rows=rows, distance=jaccard_distance.between(known))
    return _LAST["distance"]


def _dense(distance: sp.csr_array) -> np.ndarray:
    full = np.ones(distance.shape)
    full[np.repeat(np.arange(len(full)), np.diff(distance.indptr)), distance.indices] = distance.data
    return full


def _means(rows: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    return cosine.unit(cosine.centroids([(rows, tracklet)], int(tracklet.max()) + 1)).astype(np.float32)


def _average(apart: np.ndarray, thresholds: np.ndarray) -> Labels:
    apart = np.maximum((apart + apart.T) / 2, 0)
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(squareform(apart, checks=False), "average")
    for threshold in thresholds:
        yield threshold, hierarchy.fcluster(tree, threshold, "distance")

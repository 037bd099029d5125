"""What else makes identities of crops: clusterings of images and of tracklets, each over a range of limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.cluster import hierarchy
from scipy.sparse import csgraph
from scipy.spatial.distance import squareform

from cion_jax.neighbors import cosine, reciprocal, search

Labels = Iterator[tuple[float, np.ndarray]]
"""Limits and the [n] identities that they give."""

RECIPROCAL = 30  # neighbors, as unsupervised re-identification has it
CORE = 4  # DBSCAN's least number of neighbors, its own row included
_BLOCK = 500
_LAST: dict = {}


@dataclass(frozen=True)
class Rival:
    """A name and what gives identities from unit rows [n, d] and tracklets [n], at several limits."""

    name: str
    run: Callable[[np.ndarray, np.ndarray], Labels]


def centroids(rows: np.ndarray, tracklet: np.ndarray) -> Labels:
    """Average linkage of the centroids of tracklets by cosine distance."""
    means = _means(rows, tracklet)
    return _average(1 - (means @ means.T).astype(np.float64), np.arange(0.11, 0.36, 0.02), tracklet)


def tracklets(rows: np.ndarray, tracklet: np.ndarray) -> Labels:
    """Average linkage of tracklets on the k-reciprocal Jaccard distance of their centroids."""
    means = _means(rows, tracklet)
    shared = jaccard(means)
    return _average(1 - shared.toarray().astype(np.float64), np.arange(0.50, 0.90, 0.03), tracklet)


def dbscan(rows: np.ndarray, tracklet: np.ndarray) -> Labels:
    """DBSCAN of images on the k-reciprocal Jaccard distance; outliers stand alone."""
    shared = jaccard(rows)
    for eps in (0.35, 0.4, 0.45, 0.5, 0.55, 0.6):
        near = shared >= 1 - eps
        core = near.sum(axis=1) >= CORE
        graph = near[core][:, core]
        labels = np.full(len(rows), -1)
        labels[core] = csgraph.connected_components(graph, directed=False)[1]
        edge = np.flatnonzero(~core)
        reach = near[edge][:, np.flatnonzero(core)].tocsr()
        found = np.diff(reach.indptr) > 0
        labels[edge[found]] = labels[core][reach.indices[reach.indptr[:-1][found]]]
        yield eps, labels


def hdbscan(rows: np.ndarray, tracklet: np.ndarray) -> Labels:
    """HDBSCAN of images on the k-reciprocal Jaccard distance, over its least cluster size."""
    from sklearn.cluster import HDBSCAN

    apart = np.maximum(1 - jaccard(rows).toarray().astype(np.float64), 0)
    apart = (apart + apart.T) / 2
    for least in (4, 8):
        yield (
            least,
            HDBSCAN(min_cluster_size=least, min_samples=CORE, metric="precomputed").fit_predict(apart),
        )


RIVALS = (
    Rival("average linkage of tracklets' centroids", centroids),
    Rival("average linkage of tracklets, k-reciprocal Jaccard", tracklets),
    Rival("DBSCAN of images, k-reciprocal Jaccard", dbscan),
    Rival("HDBSCAN of images, k-reciprocal Jaccard", hdbscan),
)


def jaccard(rows: np.ndarray) -> sp.csr_array:
    """[n, n] k-reciprocal Jaccard similarity, exact; that of the last rows is remembered."""
    if _LAST.get("rows") is not rows:
        _LAST.update(rows=rows, shared=_jaccard(rows))
    return _LAST["shared"]


def _jaccard(rows: np.ndarray) -> sp.csr_array:
    known = reciprocal.distributions(rows, search.nearest(rows, RECIPROCAL)).tocsr()
    columns = known.T.tocsr()
    sizes = np.diff(columns.indptr)
    pieces = []
    for start in range(0, len(rows), _BLOCK):
        part = known[start : start + _BLOCK].tocoo()
        times = sizes[part.col]
        begin = np.repeat(columns.indptr[part.col] - np.cumsum(times) + times, times)
        at = begin + np.arange(times.sum())
        least = np.minimum(np.repeat(part.data, times), columns.data[at]).astype(np.float32)
        pieces.append(
            sp.coo_array((least, (np.repeat(part.row, times), columns.indices[at])), shape=part.shape).tocsr()
        )
    shared = sp.vstack(pieces).tocsr()
    shared.data /= 2 - shared.data
    return shared


def _means(rows: np.ndarray, tracklet: np.ndarray) -> np.ndarray:
    return cosine.unit(cosine.centroids([(rows, tracklet)], int(tracklet.max()) + 1)).astype(np.float32)


def _average(apart: np.ndarray, limits: np.ndarray, tracklet: np.ndarray) -> Labels:
    apart = np.maximum((apart + apart.T) / 2, 0)
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(squareform(apart, checks=False), "average")
    for limit in limits:
        yield limit, hierarchy.fcluster(tree, limit, "distance")[tracklet]

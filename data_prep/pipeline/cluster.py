"""Runs the clustering of `denoise.robust` on a data set whose tracklets are divided into parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from cion_jax.neighbors.linkage import NO_PAIRS
from data_prep.config import Method
from data_prep.denoise import shared_neighbors
from data_prep.denoise.per_video import Levels
from data_prep.pipeline.image_table import Collection


def identities(collection: Collection, method: Method) -> tuple[Levels, np.ndarray, shared_neighbors.Outcome]:
    """Clusters the parts of all tracklets.

    Returns:
      What levels 1 and 2 did, [N] int64 identities after level 3 (-1: excluded from its tracklet and left alone), and
      the clustering.
    """
    part, nodes = _nodes(collection)
    met = collection.met(part)
    cannot = met if method.cannot_link else NO_PAIRS
    if method.normalize:
        nodes = nodes.normalized()
    outcome = shared_neighbors.cluster(nodes, cannot, met, method.calibrate)
    identity = outcome.identity[part]
    levels = collection.levels(_levels(collection, identity))
    lost = (levels.round > 0) & (np.bincount(identity)[identity] == 1)
    return levels, np.where(lost, -1, identity), outcome


def _nodes(collection: Collection) -> tuple[np.ndarray, shared_neighbors.Nodes]:
    """[N] the node of every image, and the nodes."""
    part, bounds = [np.zeros(0, np.int64)], [0]
    for name in collection.videos:
        with np.load(collection.work.file(name, "parts")) as arrays:
            part.append(arrays["part"] + bounds[-1])
            bounds.append(bounds[-1] + len(np.unique(part[-1])))
    whole = np.concatenate(part)
    _, first = np.unique(whole, return_index=True)
    video = np.repeat(np.arange(len(collection.videos)), np.diff(bounds))
    boxed = collection.table["box"].is_valid().to_numpy()
    size, rows = np.bincount(whole), _rows(collection, bounds)
    return whole, shared_neighbors.Nodes(rows, size, video, collection.tracklet[first], boxed[first])


def _rows(collection: Collection, bounds: list[int]) -> np.ndarray:
    """[n, d] the rows of all nodes, those of video v from bounds[v] to bounds[v + 1]; they are held once only."""
    rows = np.zeros((0, 0), np.float32)
    for name, (start, end) in zip(collection.videos, itertools.pairwise(bounds), strict=True):
        with np.load(collection.work.file(name, "parts")) as arrays:
            found = arrays["rows"]
        if not rows.size:
            rows = np.empty((bounds[-1], found.shape[1]), np.float32)
        rows[start:end] = found
    return rows


def _levels(collection: Collection, identity: np.ndarray) -> Iterator[Levels]:
    for (features, own), (start, end, first) in zip(collection.parts(identity), collection.spans(), strict=True):
        yield shared_neighbors.levels(features, collection.tracklet[start:end] - first, own)

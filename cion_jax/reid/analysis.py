"""Where a model fails: ranked lists, distances of same and of different people, which pairs of cameras are hard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cion_jax.reid.distances import Distances, blocks
from cion_jax.reid.metrics import Pairing, average_precision, ranks_of

_BINS, _SAMPLED = 400, 32  # of distances; queries whose distances tell the range


@dataclass(frozen=True)
class Analysis:
    """Result of `analyze`.

    Attributes:
      edges: [bins + 1] distances, rising; what lies outside is counted in the first or last bin.
      same: [bins] int64, pairs of one person, without the query's own camera.
      different: [bins] int64, pairs of different people.
      camera_pairs: (query's camera, gallery camera) -> (mAP with the images of this camera alone as the gallery, number
        of queries with a match there).
    """

    edges: np.ndarray
    same: np.ndarray
    different: np.ndarray
    camera_pairs: dict[tuple[int, int], tuple[float, int]]

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """([bins] FPR, [bins] TPR) at the upper edges of the bins."""
        fpr, tpr = (counts.cumsum() / max(counts.sum(), 1) for counts in (self.different, self.same))
        return fpr, tpr


def analyze(distances: Distances, pairing: Pairing, query_cameras: np.ndarray, gallery_cameras: np.ndarray) -> Analysis:
    """Goes once more through all distances, of queries that have a match."""
    step = max(distances.shape[0] // _SAMPLED, 1)
    sampled = [distances.rows(slice(row, row + 1)) for row in range(0, distances.shape[0], step)]
    edges = np.linspace(min(row.min() for row in sampled), max(row.max() for row in sampled), _BINS + 1)
    same, different = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64)
    columns = {camera: np.flatnonzero(gallery_cameras == camera) for camera in np.unique(gallery_cameras).tolist()}
    found: dict[tuple[int, int], list[float]] = {}
    for rows, distance_BG in blocks(distances):
        for query, row_G in zip(range(rows.start, rows.stop), distance_BG, strict=True):
            match, junk = pairing.of(query)
            if not len(match):
                continue
            for camera in np.unique(gallery_cameras[match]).tolist():
                ap = _average_precision(row_G, match, columns[camera])
                found.setdefault((int(query_cameras[query]), camera), []).append(ap)
            bins_G = _bins(row_G, edges)
            same += np.bincount(bins_G[match], minlength=_BINS)
            different += np.bincount(bins_G, minlength=_BINS)
            different -= np.bincount(bins_G[np.concatenate([match, junk])], minlength=_BINS)
    pairs = {pair: (float(np.mean(aps)), len(aps)) for pair, aps in sorted(found.items())}
    return Analysis(edges, same, different, pairs)


def ranked(distances: Distances, pairing: Pairing, query: int, top: int) -> list[tuple[int, float, bool]]:
    """The nearest `top` gallery images of a query, junk left out: (number, distance, whether it is the same person)."""
    row_G = distances.rows(slice(query, query + 1))[0]
    match, junk = pairing.of(query)
    row_G[junk] = np.inf
    order = np.argsort(row_G, kind="stable")[: min(top, len(row_G) - len(junk))]
    return [(int(at), float(row_G[at]), bool(np.isin(at, match))) for at in order]


def _average_precision(row_G: np.ndarray, match: np.ndarray, columns: np.ndarray) -> float:
    """Of a gallery that consists of some columns, rising."""
    inside = np.searchsorted(columns, match[np.isin(match, columns)])
    return average_precision(ranks_of(row_G[columns], inside, np.zeros(0, np.int64)))


def _bins(row_G: np.ndarray, edges: np.ndarray) -> np.ndarray:
    width = max((edges[-1] - edges[0]) / _BINS, 1e-12)
    return np.clip((row_G - edges[0]) / width, 0, _BINS - 1).astype(np.int64)

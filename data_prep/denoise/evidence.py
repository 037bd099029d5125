"""What can be seen without labels of how right a clustering is.

The features are divided into two halves that were made alike, and everything is clustered again with each. Whatever is
joined for a good reason is joined by both; and the similarity of what one half joined, seen with the other half, which
had no part in it, is that of people and not of what was looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cion_jax.neighbors import cosine
from cion_jax.neighbors.linkage import Pairs

NAMES = (
    "kept by both",  # share of the pairs that a half joins that the whole joins
    "found by half",  # share of the pairs that the whole joins that a half joins
    "agreement",  # of the halves: pairs that both join, of those that one joins
    "across videos",  # share of the joined pairs
    "in one tracklet",  # share of the pairs of a tracklet that are joined
    "alike, seen",  # similarity of joined pairs across videos, by the half that joined them, to that of track mates
    "alike, unseen",  # the same by the other half, both above that of anybody
    "apart",  # how far track mates are from anybody, in standard deviations
    "size",  # logarithm of nodes per identity
    "identities",  # logarithm of their number
    "tracklets",  # logarithm of their number per video
    "images",  # logarithm of their number per tracklet
)
_SEED, _SAMPLE = 0, 40_000  # pairs that similarities are measured on
_LEAST, _MOST = 0.02, 10.0  # of ratios, where there is little to measure


class Nodes(Protocol):
    """What was clustered; see `shared_neighbors.Nodes`."""

    @property
    def rows(self) -> np.ndarray:
        """[n, d] float32 of unit length."""
        ...

    @property
    def weight(self) -> np.ndarray:
        """[n] number of images."""
        ...

    @property
    def video(self) -> np.ndarray:
        """[n] int64."""
        ...

    @property
    def tracklet(self) -> np.ndarray:
        """[n] int64, numbered over the data set."""
        ...


@dataclass(frozen=True)
class Joined:
    """Pairs of images that some labels join: within tracklets, between tracklets of a video, across videos."""

    tracklet: float
    video: float
    across: float

    @property
    def all(self) -> float:
        """Their sum."""
        return self.tracklet + self.video + self.across


def joined(identity: np.ndarray, nodes: Nodes) -> Joined:
    """Counts pairs of different nodes, each as often as it has pairs of images."""
    own = _pairs(_both(identity, nodes.tracklet), nodes.weight)
    video = _pairs(_both(identity, nodes.video), nodes.weight)
    return Joined(own, video - own, _pairs(identity, nodes.weight) - video)


@dataclass(frozen=True)
class Evidence:
    """What was seen.

    Attributes:
      values: [len(NAMES)] float64.
      support: [n] float64, of the pairs of a node in its identity the share that halves find too; 1 where it is alone.
    """

    values: np.ndarray
    support: np.ndarray


def evidence(nodes: Nodes, identity: np.ndarray, again: Callable[[np.ndarray], np.ndarray]) -> Evidence:
    """Clusters twice more and compares.

    Args:
      nodes: that were clustered.
      identity: [n] int64 that was found.
      again: f(other rows of unit length for the same nodes) -> [n] int64 identities, found in the same way.
    """
    rng = np.random.default_rng(_SEED)
    halves = _halves(nodes.rows, rng)
    labels = [again(rows) for rows in halves]
    common = [_both(label, identity) for label in labels]
    values = _values(nodes, identity, labels, common)
    seen = np.mean([_similar(nodes, halves[i], halves[1 - i], labels[i], rng) for i in (0, 1)], axis=0)
    return Evidence(np.concatenate([values[:5], seen, values[5:]]), _support(nodes.weight, identity, common))


def _values(nodes: Nodes, identity: np.ndarray, labels: list[np.ndarray], common: list[np.ndarray]) -> np.ndarray:
    """Those of `NAMES` that counts tell."""
    whole, each = joined(identity, nodes), [joined(label, nodes).all for label in labels]
    kept, both = [joined(label, nodes).all for label in common], joined(_both(*labels), nodes).all
    everything = joined(np.zeros(len(identity), np.int64), nodes)
    identities, tracklets = int(identity.max()) + 1, len(np.unique(nodes.tracklet))
    return np.array(
        [
            _logit(np.mean([_share(k, e) for k, e in zip(kept, each, strict=True)])),
            _logit(np.mean([_share(k, whole.all) for k in kept])),
            _logit(_share(both, sum(each) - both)),
            _logit(_share(whole.across, whole.all)),
            _logit(_share(whole.tracklet, everything.tracklet)),
            np.log(len(identity) / identities),
            np.log(identities),
            np.log(tracklets / len(np.unique(nodes.video))),
            np.log(nodes.weight.sum() / tracklets),
        ]
    )


def _halves(rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Two halves of the features' principal axes, drawn at random: rows [n, d / 2] of unit length each."""
    axes = np.linalg.eigh((rows.T @ rows).astype(np.float64))[1].astype(np.float32)
    order = rng.permutation(rows.shape[1])
    return [cosine.unit(rows @ axes[:, order[start::2]], np.float32) for start in (0, 1)]


def _similar(
    nodes: Nodes, seen: np.ndarray, unseen: np.ndarray, identity: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """What pairs that were joined look like, by the half that joined them and by the other: see `NAMES`."""
    i, j = _sampled(identity, rng)
    anybody = rng.integers(0, len(identity), (2, _SAMPLE))
    strangers = cosine.of_pairs(unseen, *anybody[:, identity[anybody[0]] != identity[anybody[1]]])
    mates, across = nodes.tracklet[i] == nodes.tracklet[j], nodes.video[i] != nodes.video[j]
    if not (len(strangers) and mates.any() and across.any()):
        return 0.0, 0.0, 0.0
    base, spread = strangers.mean(), max(float(strangers.std()), 1e-6)
    held, own = cosine.of_pairs(unseen, i, j), cosine.of_pairs(seen, i, j)
    return (
        float(np.log(max(own[across].mean() / max(own[mates].mean(), 1e-6), _LEAST))),
        float(np.log(max((held[across].mean() - base) / max(held[mates].mean() - base, 1e-6), _LEAST))),
        float(min((held[mates].mean() - base) / spread, _MOST)),
    )


def _support(weight: np.ndarray, identity: np.ndarray, common: list[np.ndarray]) -> np.ndarray:
    """See `Evidence`."""
    others = np.bincount(identity, weight)[identity] - weight
    found = np.mean([np.bincount(label, weight)[label] - weight for label in common], axis=0)
    return np.where(others > 0, found / np.maximum(others, 1), 1.0)


def _sampled(identity: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Random pairs of different nodes of one identity."""
    order, size = np.argsort(identity, kind="stable"), np.bincount(identity)
    start, several = np.cumsum(size) - size, np.flatnonzero(size[identity] > 1)
    if not len(several):
        return several, several
    i = rng.choice(several, _SAMPLE)
    j = order[start[identity[i]] + rng.integers(0, size[identity[i]])]
    return i[i != j], j[i != j]


def _both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Labels of those that share both."""
    return np.unique(a * (int(b.max(initial=0)) + 1) + b, return_inverse=True)[1]


def _pairs(labels: np.ndarray, weight: np.ndarray) -> float:
    total, squares = np.bincount(labels, weight), np.bincount(labels, weight.astype(np.float64) ** 2)
    return float((total**2 - squares).sum() / 2)


def _share(part: float, whole: float) -> float:
    return (part + 1) / (whole + 1)


def _logit(share: float | np.floating) -> float:
    kept = min(max(float(share), 0.005), 0.995)
    return float(np.log(kept / (1 - kept)))

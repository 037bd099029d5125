"""Thresholds for any extractor without labels: images of one tracklet are one person, co-occurring ones are two.

Both statements are wrong now and then, so thresholds are read off the two distributions, never off their ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors import cosine
from cion_jax.neighbors.linkage import Pairs, between
from data_prep.denoise.settings import CalibrationSettings, Thresholds

COOCCURRING, RANDOM, NONE = "co-occurring tracklets", "random pairs of tracklets", "too few tracklets"


@dataclass(frozen=True)
class Samples:
    """Cosine distances of one video, or of all; each [any] float64.

    Attributes:
      image: of images to the mean of the others of their tracklet.
      image_apart: of images to the centroid of somebody else's tracklet.
      centroid: between the two halves of a tracklet.
      centroid_apart: between the centroids of two people's tracklets.
    """

    image: np.ndarray
    image_apart: np.ndarray
    centroid: np.ndarray
    centroid_apart: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """Thresholds and what they were seen against.

    Attributes:
      thresholds: in force.
      samples: distances of the input.
      different_people: whose distances stand for theirs, `COOCCURRING`, `RANDOM` or `NONE`.
      calibrated: thresholds that were not set come from the samples.
    """

    thresholds: Thresholds
    samples: Samples
    different_people: str
    calibrated: bool


def sample(features: np.ndarray, tracklet: np.ndarray, cooccurring: Pairs) -> Samples:
    """Distances within one video.

    Args:
      features: [m, d].
      tracklet: [m] int64, 0 .. T-1, images in time order.
      cooccurring: pairs of images of different people; their tracklets are compared.
    """
    count = int(tracklet.max(initial=-1)) + 1
    x = cosine.unit(features)
    size = np.bincount(tracklet, minlength=count)
    place = np.arange(len(tracklet)) - np.searchsorted(tracklet, tracklet)
    early = place < size[tracklet] // 2
    totals = cosine.centroids([(x, tracklet)], count) * size[:, None]
    several = size > 1
    rest = (totals[tracklet] - x)[several[tracklet]]
    halves = [cosine.unit(cosine.centroids([(x, np.where(e, tracklet, -1))], count)) for e in (early, ~early)]
    means = cosine.unit(totals)
    i, j = np.concatenate([np.stack(cooccurring), np.stack(cooccurring[::-1])], axis=1)
    pairs = between(tracklet, cooccurring)
    return Samples(
        _apart(x[several[tracklet]], cosine.unit(rest)),
        _apart(x[i], means[tracklet[j]]),
        _apart(halves[0][several], halves[1][several]),
        _apart(means[pairs[0]], means[pairs[1]]),
    )


def random_pairs(tracklet: np.ndarray, rng: np.random.Generator) -> Pairs:
    """For every image a random one of another tracklet of its video, mostly another person; none if there is none."""
    other = rng.integers(0, max(len(tracklet), 1), len(tracklet))
    i = np.flatnonzero(tracklet[other] != tracklet)
    return i, other[i]


def joined(samples: Sequence[Samples], most: int, rng: np.random.Generator) -> Samples:
    """Samples of several videos in one, each distribution thinned to `most` values."""
    names = ("image", "image_apart", "centroid", "centroid_apart")
    whole = (np.concatenate([np.zeros(0), *(getattr(s, name) for s in samples)]) for name in names)
    return Samples(*(rng.choice(x, min(most, len(x)), replace=False) for x in whole))


def thresholds(samples: Samples, settings: CalibrationSettings) -> tuple[float, float] | None:
    """sigma_cst and sigma_drm; None where there are too few distances.

    sigma_cst takes as many images of the same person for strangers as it takes strangers for the same person.
    sigma_drm lets the share `false_links` of all pairs of people pass for one person: chains multiply every mistake.
    """
    whole = (samples.image, samples.image_apart, samples.centroid, samples.centroid_apart)
    if min(map(len, whole)) < settings.min_pairs:
        return None
    return crossing(samples.image, samples.image_apart), float(
        np.quantile(samples.centroid_apart, settings.false_links)
    )


def crossing(same: np.ndarray, other: np.ndarray) -> float:
    """The threshold with as large a share of `same` at or above it as of `other` below it; both at least one value."""
    same, other = np.sort(same), np.sort(other)
    values = np.unique(np.concatenate([same, other]))
    wrong = 1 - np.searchsorted(same, values) / len(same)
    return float(values[np.argmin(np.abs(wrong - np.searchsorted(other, values) / len(other)))])


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(cosine.distance(np.einsum("nd,nd->n", a, b)), 0)

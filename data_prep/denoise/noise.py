"""The noise n_S of a set of identities (eq. 1-3 of the CION paper): a measure, never optimized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors import cosine
from cion_jax.neighbors import search as neighbors
from data_prep.denoise.settings import SearchSettings, Thresholds


@dataclass(frozen=True)
class Noise:
    """Noise of a set of identities.

    Attributes:
      identities: number of identities M.
      consistency: how many of them reach the radius sigma_cst.
      discrimination: ordered pairs of them that are no further apart than sigma_drm.
      compared: identities that were compared with all others. Where that is a sample, `discrimination` is what it
        scales up to: right on average, with a standard error.
      error: that standard error, in pairs; 0 where all were compared.
    """

    identities: int
    consistency: int
    discrimination: float
    compared: int
    error: float = 0.0

    @property
    def per_identity(self) -> float:
        """n_S: both kinds, per identity; 0 where there is none."""
        return (self.consistency + self.discrimination) / max(self.identities, 1)


class WithinVideos:
    """Measures identities that lie within one video each while the videos go by: their features are seen once.

    Attributes:
      identities: how many there are so far.
      noisy: how many of them reach the radius sigma_cst.
    """

    def __init__(self, room: np.ndarray, sigma_cst: float):
        """Room for the centroids [most, d] float64 of all identities."""
        self.identities, self.noisy = 0, 0
        self._means, self._sigma_cst = room, sigma_cst

    @property
    def means(self) -> np.ndarray:
        """[M, d] centroids, video by video."""
        return self._means[: self.identities]

    def add(self, x: np.ndarray, labels: np.ndarray) -> None:
        """The next video: unit features [m, d], and identities [m] numbered within it without gaps, -1: none."""
        size = np.bincount(labels[labels >= 0])
        means = cosine.sums(x, labels, len(size)) / size[:, None]
        radius, inside = np.full(len(size), -1.0), labels >= 0
        np.maximum.at(radius, labels[inside], cosine.to_own_centroid(x[inside], labels[inside], means))
        self._means[self.identities : self.identities + len(size)] = means
        self.identities += len(size)
        self.noisy += int((radius >= self._sigma_cst).sum())


def measure(
    labeled: cosine.Labeled, means: np.ndarray, thresholds: Thresholds, search: SearchSettings
) -> tuple[Noise, np.ndarray]:
    """Noise of identities with centroids `means` [M, d], and what `consistency` says of the distances."""
    noisy, distance = consistency(labeled, means, thresholds.sigma_cst)
    return total(means, noisy, thresholds.sigma_drm, search), distance


def total(means: np.ndarray, noisy: int, sigma_drm: float, search: SearchSettings) -> Noise:
    """Noise of identities with centroids `means` [M, d], `noisy` of which reach the radius sigma_cst."""
    if len(means) <= search.exact_rows:
        return Noise(len(means), noisy, discrimination(means, sigma_drm), len(means))
    return Noise(len(means), noisy, *sampled_discrimination(means, sigma_drm, search.noise_sample))


def consistency(labeled: cosine.Labeled, means: np.ndarray, sigma_cst: float) -> tuple[int, np.ndarray]:
    """Eq. 1: mu(max_i dist(x_i, c_k) - sigma_cst) with mu(0) = 1, for centroids c_k = `means` [M, d].

    Returns:
      How many identities are noisy, and [N] distances of all images to their centroids, nan where there is none.
    """
    radius, distances = np.full(len(means), -1.0), [np.zeros(0)]
    for features, labels in labeled:
        inside = labels >= 0
        found, local = np.unique(labels[inside], return_inverse=True)
        apart = np.full(len(labels), np.nan)
        apart[inside] = cosine.to_own_centroid(cosine.unit(features[inside]), local, means[found])
        np.maximum.at(radius, labels[inside], apart[inside])
        distances.append(apart)
    return int((radius >= sigma_cst).sum()), np.concatenate(distances)


def discrimination(means: np.ndarray, sigma_drm: float) -> int:
    """Eq. 2: how many ordered pairs i != j of centroids [M, d] have mu(sigma_drm - dist(c_i, c_j)) = 1."""
    return 2 * sum(len(i) for i, _ in neighbors.links(means, sigma_drm, len(means)))


def sampled_discrimination(means: np.ndarray, sigma_drm: float, sampled: int) -> tuple[float, int, float]:
    """The same, estimated from `sampled` random ones: pairs, how many were compared with all, standard error."""
    some = np.sort(np.random.default_rng(0).choice(len(means), sampled, replace=False))
    each = np.zeros(len(means), np.int64)
    for i, _ in neighbors.around(means, some, sigma_drm):
        each += np.bincount(i, minlength=len(means))
    scale = len(means) / sampled
    return scale * float(each.sum()), sampled, scale * float(each[some].std(ddof=1)) * sampled**0.5

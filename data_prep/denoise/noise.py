"""The noise n_S of a set of identities (eq. 1-3 of the CION paper): a measure, never optimized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors import cosine, search

SAMPLED = 4096  # identities whose pairs are counted where there are too many to compare all


@dataclass(frozen=True)
class Noise:
    """Noise of a set of identities.

    Attributes:
      identities: number of identities M.
      consistency: how many of them reach the radius sigma_cst.
      discrimination: ordered pairs of them that are no further apart than sigma_drm.
      compared: identities that were compared with all others. Where that is a sample, `discrimination` is what it
        scales up to: right on average, with a standard error.
      distance: [N] of every image to the centroid of its identity, in the order of the data set; nan: it has none.
      error: that standard error, in pairs; 0 where all were compared.
    """

    identities: int
    consistency: int
    discrimination: float
    compared: int
    distance: np.ndarray
    error: float = 0.0

    @property
    def total(self) -> float:
        """n_S: both kinds, per identity; 0 where there is none."""
        return (self.consistency + self.discrimination) / max(self.identities, 1)


def measure(parts: cosine.Parts, means: np.ndarray, sigma_cst: float, sigma_drm: float) -> Noise:
    """Noise of identities with centroids `means` [M, d]; see `cosine.Parts` for the data set."""
    noisy, distance = consistency(parts, means, sigma_cst)
    if len(means) <= search.EXACT:
        return Noise(len(means), noisy, discrimination(means, sigma_drm), len(means), distance)
    pairs, compared, error = sampled_discrimination(means, sigma_drm)
    return Noise(len(means), noisy, pairs, compared, distance, error)


def consistency(parts: cosine.Parts, means: np.ndarray, sigma_cst: float) -> tuple[int, np.ndarray]:
    """Eq. 1: mu(max_i dist(x_i, c_k) - sigma_cst) with mu(0) = 1, for centroids c_k = `means` [M, d].

    Returns:
      How many identities are noisy, and [N] distances of all images to their centroids, nan where there is none.
    """
    radius, distances = np.full(len(means), -1.0), [np.zeros(0)]
    for features, labels in parts:
        inside = labels >= 0
        found, local = np.unique(labels[inside], return_inverse=True)
        apart = np.full(len(labels), np.nan)
        apart[inside] = cosine.to_own_centroid(features[inside], local, means[found])
        np.maximum.at(radius, labels[inside], apart[inside])
        distances.append(apart)
    return int((radius >= sigma_cst).sum()), np.concatenate(distances)


def discrimination(means: np.ndarray, sigma_drm: float) -> int:
    """Eq. 2: how many ordered pairs i != j of centroids [M, d] have mu(sigma_drm - dist(c_i, c_j)) = 1."""
    return 2 * sum(len(i) for i, _ in search.links(means, sigma_drm, len(means)))


def sampled_discrimination(means: np.ndarray, sigma_drm: float) -> tuple[float, int, float]:
    """The same, estimated from a random few: pairs, how many centroids were compared with all, standard error."""
    some = np.sort(np.random.default_rng(0).choice(len(means), SAMPLED, replace=False))
    each = np.zeros(len(means), np.int64)
    for i, _ in search.around(means, some, sigma_drm):
        each += np.bincount(i, minlength=len(means))
    scale = len(means) / SAMPLED
    return scale * float(each.sum()), SAMPLED, scale * float(each[some].std(ddof=1)) * SAMPLED**0.5

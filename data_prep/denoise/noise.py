"""The noise n_S of a set of identities (eq. 1-3 of the CION paper): a measure, never optimised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.denoise import cosine
from data_prep.neighbors import links


@dataclass(frozen=True)
class Noise:
    """Noise of a set of identities.

    Attributes:
      identities: number of identities M.
      consistency: how many of them reach the radius sigma_cst.
      discrimination: ordered pairs of them that are no further apart than sigma_drm.
    """

    identities: int
    consistency: int
    discrimination: int

    @property
    def total(self) -> float:
        """n_S: both kinds, per identity; 0 where there is none."""
        return (self.consistency + self.discrimination) / max(self.identities, 1)


def measure(parts: cosine.Parts, means: np.ndarray, sigma_cst: float, sigma_drm: float) -> Noise:
    """Noise of identities with centroids `means` [M, d]; see `cosine.Parts` for the data set."""
    noisy = int(consistency(parts, means, sigma_cst).sum())
    return Noise(len(means), noisy, discrimination(means, sigma_drm))


def consistency(parts: cosine.Parts, means: np.ndarray, sigma_cst: float) -> np.ndarray:
    """Eq. 1: mu(max_i dist(x_i, c_k) - sigma_cst) with mu(0) = 1, for centroids c_k = `means` [M, d].

    Returns:
      [M] bool: the identity is noisy.
    """
    radius = np.full(len(means), -1.0)
    for features, labels in parts:
        inside = labels >= 0
        found, local = np.unique(labels[inside], return_inverse=True)
        apart = cosine.to_own_centroid(features[inside], local, means[found])
        np.maximum.at(radius, labels[inside], apart)
    return radius >= sigma_cst


def discrimination(means: np.ndarray, sigma_drm: float) -> int:
    """Eq. 2: how many ordered pairs i != j of centroids [M, d] have mu(sigma_drm - dist(c_i, c_j)) = 1."""
    return 2 * sum(len(i) for i, _ in links(means, sigma_drm, len(means)))

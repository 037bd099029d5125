"""Level 1: the images of one tracklet that do not look like the rest leave it (eq. 4 of the CION paper)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors import cosine


@dataclass(frozen=True)
class Cleaned:
    """What level 1 did with the m images of one tracklet.

    Attributes:
      round: [m] int32, the round in which the image left, counted from 1; 0: it stayed.
      distance: [m] float64 cosine distance to the mean of the others in that round; for those that stayed, in
        the last round, or nan for an image that is left alone.
    """

    round: np.ndarray
    distance: np.ndarray

    @property
    def keep(self) -> np.ndarray:
        """[m] bool: the image stayed."""
        return self.round == 0


def clean(features: np.ndarray, sigma_cst: float) -> Cleaned:
    """Round by round, the image furthest from the mean of the others leaves while that is >= sigma_cst away.

    One image alone is clean; of two that disagree the later leaves, as everywhere the later of equals does.
    A round costs one product of the features with a vector.

    Args:
      features: [m, d] of one tracklet in time order, none of them 0.
      sigma_cst: consistency threshold, a cosine distance.
    """
    x = cosine.unit(features)
    count = len(x)
    rounds, distances = np.zeros(count, np.int32), np.full(count, np.nan)
    total = x.sum(axis=0)
    similarity, length2 = x @ total, total @ total
    for number in range(1, count):
        stayed = rounds == 0
        apart = cosine.leave_one_out(similarity, length2, count - number)
        distances[stayed] = apart[stayed]
        worst = count - 1 - int(np.argmax(np.where(stayed, apart, -1)[::-1]))
        if apart[worst] < sigma_cst:
            return Cleaned(rounds, distances)
        rounds[worst] = number
        length2 += 1 - 2 * similarity[worst]
        similarity = similarity - x @ x[worst]
    distances[rounds == 0] = np.nan
    return Cleaned(rounds, distances)

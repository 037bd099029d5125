"""How good features are on tracks without labels: every track is cut in two, and the other half is looked for.

The halves of a track show one person at different times; all other halves are taken for others, though some are of the
same person in another track. That costs every network the same queries, so two networks on the same tracks compare, but
the number itself is no accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors import cosine

RATES = (0.1, 0.01, 0.001)  # false match rates that a threshold is given for
ENOUGH = 10  # false matches that a rate has to mean, or it cannot be measured


@dataclass(frozen=True)
class Score:
    """What was measured of a network on a probe.

    Attributes:
      reciprocal_rank: mean of 1 / rank of the other half, 0 .. 1; what rounds are compared by.
      rank1: share of halves whose nearest half is the other one.
      operating: by false match rate: cosine distance below which images are taken for one person, and the share of
        pairs of images within a track that it keeps.
    """

    reciprocal_rank: float
    rank1: float
    operating: dict[str, dict[str, float]]


def score(features_ND: np.ndarray, track_N: np.ndarray, video_N: np.ndarray) -> Score:
    """Measures features of tracks.

    Args:
      features_ND: of images in time order within their track; any length.
      track_N: int track of every image, each of two images or more, those of a track together.
      video_N: int video of every image.
    """
    x_ND = cosine.unit(features_ND)
    half_N = _halves(track_N)
    means_HD = np.zeros((half_N[-1] + 1, x_ND.shape[1]))
    np.add.at(means_HD, half_N, x_ND)
    means_HD = cosine.unit(means_HD)
    distance_HH = cosine.distance(means_HD @ means_HD.T)
    np.fill_diagonal(distance_HH, np.inf)
    every = np.arange(len(means_HD))
    other_H = distance_HH[every, every ^ 1]  # halves 2t and 2t + 1 are of track t
    rank = 1 + (distance_HH < other_H[:, None]).sum(1)  # of equals, the other half comes first
    return Score(float((1 / rank).mean()), float((rank == 1).mean()), _operating(x_ND, track_N, video_N))


def _halves(track_N: np.ndarray) -> np.ndarray:
    """[N] 2t for the first half of track t, 2t + 1 for the second."""
    _, number, size = np.unique(track_N, return_inverse=True, return_counts=True)
    start = np.cumsum(size) - size
    place = np.arange(len(track_N)) - start[number]
    return 2 * number + (place >= (size // 2)[number])


def _operating(x_ND: np.ndarray, track_N: np.ndarray, video_N: np.ndarray) -> dict[str, dict[str, float]]:
    """Images of one video but of different tracks count as different people, those of one track as one."""
    distance_NN = 1 - x_ND @ x_ND.T
    upper = np.triu(np.ones(distance_NN.shape, bool), 1)
    same = track_N[:, None] == track_N[None]
    different_M = distance_NN[upper & ~same & (video_N[:, None] == video_N[None])]
    same_M = distance_NN[upper & same]
    found = {}
    for rate in RATES:
        if len(different_M) * rate >= ENOUGH:
            threshold = float(np.quantile(different_M, rate))
            found[f"{rate:g}"] = {"threshold": threshold, "kept": float((same_M < threshold).mean())}
    return found

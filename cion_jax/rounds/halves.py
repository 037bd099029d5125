"""How good features are on tracks without labels.

Two people who are in one video at the same time are two people; the images of a track show one. The share of the
tracks' pairs of images that are nearer than all but a thousandth of the pairs of different people is what networks are
compared by; all but a hundredth, where it is not sure that all are different. What is more familiar is told beside it:
every track is cut in two, and the other half is looked for among the halves of its video. Neither knows of another
camera: that a network gets better from one camera to another can be hoped for, not measured, without labels.
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
      quality: what networks are compared by, 0 .. 1: the share kept at the lowest false match rate that can be measured
        and the reciprocal rank where none can.
      reciprocal_rank: mean of 1 / rank of the other half, 0 .. 1.
      rank1: share of halves whose nearest half is the other one.
      operating: by false match rate: cosine distance below which images are taken for one person, and the share of
        pairs of images within a track that it keeps.
    """

    quality: float
    reciprocal_rank: float
    rank1: float
    operating: dict[str, dict[str, float]]


def score(features_ND: np.ndarray, track_N: np.ndarray, video_N: np.ndarray, frame_N: np.ndarray) -> Score:
    """Measures features of tracks.

    Args:
      features_ND: of images in time order within their track; any length.
      track_N: int track of every image, each of two images or more, those of a track together.
      video_N: int video of every image.
      frame_N: int time of every image within its video, -1 where that is not known; then tracks of one video count as
        different people whenever they are.
    """
    x_ND = cosine.unit(features_ND)
    half_N = _halves(track_N)
    means_HD = np.zeros((half_N[-1] + 1, x_ND.shape[1]))
    np.add.at(means_HD, half_N, x_ND)
    means_HD = cosine.unit(means_HD)
    distance_HH = cosine.distance(means_HD @ means_HD.T)
    video_H = video_N[np.unique(half_N, return_index=True)[1]]
    distance_HH[video_H[:, None] != video_H[None]] = np.inf
    np.fill_diagonal(distance_HH, np.inf)
    every = np.arange(len(means_HD))
    other_H = distance_HH[every, every ^ 1]  # halves 2t and 2t + 1 are of track t
    rank = 1 + (distance_HH < other_H[:, None]).sum(1)  # of equals, the other half comes first
    reciprocal, found = float((1 / rank).mean()), _operating(x_ND, track_N, *_different(track_N, video_N, frame_N))
    quality = found[min(found, key=float)]["kept"] if found else reciprocal
    return Score(quality, reciprocal, float((rank == 1).mean()), found)


def _halves(track_N: np.ndarray) -> np.ndarray:
    """[N] 2t for the first half of track t, 2t + 1 for the second."""
    _, number, size = np.unique(track_N, return_inverse=True, return_counts=True)
    start = np.cumsum(size) - size
    place = np.arange(len(track_N)) - start[number]
    return 2 * number + (place >= (size // 2)[number])


def _different(track_N: np.ndarray, video_N: np.ndarray, frame_N: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """[N, N] whether two images count as different people, and the rates that such pairs can tell.

    Those of tracks that are in one video at the same time; where these are too few for the lowest rate, of any two
    tracks of a video, some of which a tracker may have cut out of one. These are the nearest of all, and the better the
    network the nearer, so that they tell nothing of the lowest rate.
    """
    video_NN = (track_N[:, None] != track_N[None]) & (video_N[:, None] == video_N[None])
    together_NN = video_NN & _together(track_N, frame_N)
    if together_NN.sum() / 2 * min(RATES) >= ENOUGH:
        return together_NN, RATES
    return video_NN, RATES[:-1]


def _together(track_N: np.ndarray, frame_N: np.ndarray) -> np.ndarray:
    """[N, N] whether the tracks of two images overlap in time."""
    _, first, number = np.unique(track_N, return_index=True, return_inverse=True)
    begin_N, end_N = (bound.reduceat(frame_N, first)[number] for bound in (np.minimum, np.maximum))
    return (begin_N[:, None] <= end_N[None]) & (begin_N[None] <= end_N[:, None])


def _operating(
    x_ND: np.ndarray, track_N: np.ndarray, different_NN: np.ndarray, rates: tuple[float, ...]
) -> dict[str, dict[str, float]]:
    """Thresholds by false match rate, for the rates that there are pairs enough for."""
    distance_NN = 1 - x_ND @ x_ND.T
    upper_NN = np.triu(np.ones(distance_NN.shape, bool), 1)
    different_M = distance_NN[upper_NN & different_NN]
    same_M = distance_NN[upper_NN & (track_N[:, None] == track_N[None])]
    found = {}
    for rate in rates:
        if len(different_M) * rate >= ENOUGH:
            threshold = float(np.quantile(different_M, rate))
            found[f"{rate:g}"] = {"threshold": threshold, "kept": float((same_M < threshold).mean())}
    return found

"""How good features are on tracks without labels.

Two people who are in one video at the same time are two people; the images of a track show one. At a false match rate,
images count as one person where they are nearer than all but that share of the pairs of different people; the share of
the tracks' own pairs that this keeps, on average over false match rates, is what networks are compared by. What is more
familiar is told beside it: every track is cut in two, and the other half is looked for among the halves of its video.
Neither knows of another camera: that a network gets better from one camera to another can be hoped for, not measured,
without labels.

Shape suffixes: N images, D features, H halves, T tracks, S pairs of one person, M pairs of different people, R
resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cion_jax.neighbors import cosine

RATES = (0.1, 0.03, 0.01, 0.003, 0.001)  # false match rates that a threshold is given for
TELLING = RATES[:3]  # those that can be measured where pairs of different people hide some of one
ENOUGH = 10  # false matches that a rate has to mean, or it cannot be measured
RESAMPLES = 200
_NEAREST = 4  # every so manieth pair of different people may be below a threshold of a resample, and no more are kept


@dataclass(frozen=True)
class Score:
    """What was measured of a network on a probe.

    Attributes:
      quality: what networks are compared by, 0 .. 1: the mean over the false match rates that can be measured of the
        share of pairs kept, and the reciprocal rank where none can.
      reciprocal_rank: mean of 1 / rank of the other half, 0 .. 1.
      rank1: share of halves whose nearest half is the other one.
      operating: by false match rate: cosine distance below which images are taken for one person, and the share of
        pairs of images within a track that it keeps.
      resampled: the quality of tracks drawn with replacement, the same draws for all networks of a probe.
    """

    quality: float
    reciprocal_rank: float
    rank1: float
    operating: dict[str, dict[str, float]]
    resampled: list[float]


def rise(before: Score, after: Score) -> tuple[float, float]:
    """90% interval of the difference of two qualities on one probe: above 0, the second is shown to be better."""
    low, high = np.quantile(np.subtract(after.resampled, before.resampled), (0.05, 0.95))
    return float(low), float(high)


def score(features_ND: np.ndarray, track_N: np.ndarray, video_N: np.ndarray, frame_N: np.ndarray) -> Score:
    """Measures features of tracks.

    Args:
      features_ND: of images in time order within their track; any length.
      track_N: int track of every image, each of two images or more, those of a track together.
      video_N: int video of every image.
      frame_N: int time of every image within its video, -1 where that is not known; then tracks of one video count as
        different people whenever they are.
    """
    x_ND, number_N = cosine.unit(features_ND), np.unique(track_N, return_inverse=True)[1]
    rank_H = _ranks(x_ND, number_N, video_N)
    tracks = len(rank_H) // 2
    draws = np.random.default_rng(0).integers(0, tracks, (RESAMPLES, tracks))
    # How often a track is drawn: once each, then as in the resamples.
    count_RT = np.stack([np.ones(tracks), *(np.bincount(draw, minlength=tracks) for draw in draws)])
    found, kept = _operating(_pairs(x_ND, number_N, video_N, frame_N), count_RT)
    reciprocal_R = count_RT @ (1 / rank_H).reshape(tracks, 2).mean(1) / tracks
    quality, *resampled = (kept.mean(0) if found else reciprocal_R).tolist()
    return Score(quality, float(reciprocal_R[0]), float((rank_H == 1).mean()), found, resampled)


def _ranks(x_ND: np.ndarray, track_N: np.ndarray, video_N: np.ndarray) -> np.ndarray:
    """[H] rank of the other half among the halves of the video; halves 2t and 2t + 1 are of track t."""
    half_N = _halves(track_N)
    means_HD = np.zeros((half_N[-1] + 1, x_ND.shape[1]))
    np.add.at(means_HD, half_N, x_ND)
    means_HD = cosine.unit(means_HD)
    distance_HH = cosine.distance(means_HD @ means_HD.T)
    video_H = video_N[np.unique(half_N, return_index=True)[1]]
    distance_HH[video_H[:, None] != video_H[None]] = np.inf
    np.fill_diagonal(distance_HH, np.inf)
    every = np.arange(len(means_HD))
    other_H = distance_HH[every, every ^ 1]
    return 1 + (distance_HH < other_H[:, None]).sum(1)  # of equals, the other half comes first


def _halves(track_N: np.ndarray) -> np.ndarray:
    """[N] 2t for the first half of track t, 2t + 1 for the second."""
    _, number, size = np.unique(track_N, return_inverse=True, return_counts=True)
    start = np.cumsum(size) - size
    place = np.arange(len(track_N)) - start[number]
    return 2 * number + (place >= (size // 2)[number])


@dataclass(frozen=True)
class _Pairs:
    """Pairs of images of one video.

    Attributes:
      same_S, of_S: distance and track of pairs within a track.
      different_M, of_M2: distance and the two tracks of pairs that count as different people.
      rates: that such pairs can tell.
    """

    same_S: np.ndarray
    of_S: np.ndarray
    different_M: np.ndarray
    of_M2: np.ndarray
    rates: list[float]


def _pairs(x_ND: np.ndarray, track_N: np.ndarray, video_N: np.ndarray, frame_N: np.ndarray) -> _Pairs:
    """All pairs of images of a video.

    Different people are those of tracks that are there at the same time; where these are too few for the lowest rate,
    of any two tracks of a video, some of which a tracker may have cut out of one. Such pairs are the nearest of all,
    and the better the network the nearer, so that they tell nothing of the lowest rates.
    """
    begin_N, end_N = _times(track_N, frame_N)
    parts = []
    for video in np.unique(video_N):
        rows = np.flatnonzero(video_N == video)
        i, j = np.triu_indices(len(rows), 1)
        a, b = rows[i], rows[j]
        together = (begin_N[a] >= 0) & (begin_N[a] <= end_N[b]) & (begin_N[b] <= end_N[a])
        parts.append(((1 - x_ND[rows] @ x_ND[rows].T)[i, j], np.stack([track_N[a], track_N[b]], 1), together))
    distance, of, together = (np.concatenate(each) for each in zip(*parts, strict=True))
    same = of[:, 0] == of[:, 1]
    different, rates = ~same & together, list(RATES)
    if different.sum() * min(RATES) < ENOUGH:
        different, rates = ~same, list(TELLING)
    return _Pairs(distance[same], of[same, 0], distance[different], of[different], rates)


def _times(track_N: np.ndarray, frame_N: np.ndarray) -> list[np.ndarray]:
    """[N] the first and the last time of every image's track."""
    _, first, number = np.unique(track_N, return_index=True, return_inverse=True)
    return [bound.reduceat(frame_N, first)[number] for bound in (np.minimum, np.maximum)]


def _operating(pairs: _Pairs, count_RT: np.ndarray) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """(thresholds by false match rate, for those that there are pairs enough for; [rates, R] what they keep)."""
    rates = [rate for rate in pairs.rates if len(pairs.different_M) * rate >= ENOUGH]
    if not rates:
        return {}, np.zeros((0, len(count_RT)))
    tracks = count_RT.shape[1]
    together_TT = np.bincount(pairs.of_M2 @ [tracks, 1], minlength=tracks**2).reshape(tracks, tracks)
    near = np.argsort(pairs.different_M, kind="stable")[: -(-len(pairs.different_M) // _NEAREST)]
    order = np.argsort(pairs.same_S, kind="stable")
    same_S, of_S, different_M, of_M2 = (
        pairs.same_S[order],
        pairs.of_S[order],
        pairs.different_M[near],
        pairs.of_M2[near],
    )
    threshold, kept = (np.zeros((len(rates), len(count_RT))) for _ in range(2))
    for r, count_T in enumerate(count_RT):
        wrong_M = np.cumsum(count_T[of_M2[:, 0]] * count_T[of_M2[:, 1]])
        right_S = np.concatenate([[0], np.cumsum(count_T[of_S])])
        allowed = np.array(rates) * (count_T @ together_TT @ count_T)
        threshold[:, r] = different_M[np.minimum(np.searchsorted(wrong_M, allowed, "right"), len(wrong_M) - 1)]
        kept[:, r] = right_S[np.searchsorted(same_S, threshold[:, r])] / right_S[-1]
    pairs_kept = zip(rates, threshold[:, 0].tolist(), kept[:, 0].tolist(), strict=True)
    return {f"{rate:g}": {"threshold": at, "kept": share} for rate, at, share in pairs_kept}, kept

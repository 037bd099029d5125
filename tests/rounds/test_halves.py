"""The measure without labels on tracks whose answers are known."""

import numpy as np
import pytest

from cion_jax.rounds import halves

TRACK = np.array([0, 0, 0, 1, 1, 2, 2])
VIDEO = np.zeros(7, int)
FRAME = np.full(7, -1)


def test_halves_of_tracks_that_are_apart_find_each_other():
    found = halves.score(np.eye(3)[TRACK], TRACK, VIDEO, FRAME)
    assert (found.reciprocal_rank, found.rank1) == (1.0, 1.0)


def test_a_half_that_looks_like_another_track_is_not_found_first():
    """Track 0's second half (its images 1 and 2) is track 1: its first half has no neighbor at all but equals, and
    comes second for nobody but itself."""
    features = np.array([[1.0, 0, 0], [0, 1, 0.1], [0, 1, 0.1], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    found = halves.score(features, TRACK, VIDEO, FRAME)
    # 0a: everything at 0, ties for the other half: rank 1 but for nothing nearer; 0b: 1a, 1b and then 2a, 2b before 0a.
    assert found.rank1 == pytest.approx(5 / 6)
    assert found.reciprocal_rank == pytest.approx((5 + 1 / 5) / 6)


def test_cut_in_the_middle_of_time():
    assert halves._halves(TRACK).tolist() == [0, 1, 1, 2, 3, 4, 5]


def test_thresholds_are_quantiles_of_pairs_of_different_tracks_of_a_video():
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(20), 2)
    video = np.repeat(np.arange(2), 20)
    features = rng.standard_normal((40, 8))
    found = halves.score(features, track, video, np.full(40, -1)).operating
    assert list(found) == ["0.1"]  # 360 pairs: a hundredth of them is too few to say anything
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = [
        1 - unit[i] @ unit[j] for i in range(40) for j in range(i) if track[i] != track[j] and video[i] == video[j]
    ]
    assert len(distances) == 360
    assert np.mean(np.array(distances) < found["0.1"]["threshold"]) == pytest.approx(0.1, abs=1 / 360)
    same = [1 - unit[i] @ unit[i + 1] for i in range(0, 40, 2)]
    assert found["0.1"]["kept"] == np.mean(np.array(same) < found["0.1"]["threshold"])


def test_other_videos_are_not_searched():
    """Track 2 looks like track 0's first half, but is elsewhere."""
    features = np.array([[1.0, 0, 0.1], [1, 0.5, 0], [1, 0.5, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0.1], [1, 0, 0.1]])
    assert halves.score(features, TRACK, VIDEO, FRAME).rank1 < 1
    assert halves.score(features, TRACK, np.array([0, 0, 0, 0, 0, 1, 1]), FRAME).rank1 == 1


def test_tracks_at_the_same_time():
    together = halves._together(TRACK, np.array([1, 2, 5, 5, 9, 6, 7]))
    pairs = {(int(TRACK[i]), int(TRACK[j])) for i, j in zip(*np.nonzero(together), strict=True)}
    assert pairs == {(0, 0), (1, 1), (2, 2), (0, 1), (1, 0), (1, 2), (2, 1)}  # 0 ends at 5, 2 begins at 6


@pytest.mark.parametrize(("tracks", "pairs", "lowest"), [(6, 6, 0.001), (20, 380, 0.01)])
def test_different_people_are_at_the_same_time_where_these_are_enough(tracks, pairs, lowest):
    """Two and two tracks are there together, of 60 images each: 3,600 pairs of images for every pair of tracks."""
    track = np.repeat(np.arange(tracks), 60 if tracks == 6 else 2)
    different, rates = halves._different(track, np.zeros(len(track), int), track // 2)
    assert min(rates) == lowest  # tracks that may be of one person tell nothing of a thousandth
    _, first = np.unique(track, return_index=True)
    assert different[np.ix_(first, first)].sum() == pairs


def test_quality_is_what_is_kept_at_the_lowest_rate():
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(20), 2)
    few = halves.score(rng.standard_normal((7, 4)), TRACK, VIDEO, FRAME)
    many = halves.score(rng.standard_normal((40, 4)), track, np.zeros(40, int), np.full(40, -1))
    assert (few.operating, few.quality) == ({}, few.reciprocal_rank)
    assert (list(many.operating), many.quality) == (["0.1"], many.operating["0.1"]["kept"])

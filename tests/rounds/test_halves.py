"""The measure without labels on tracks whose answers are known."""

import numpy as np
import pytest

from cion_jax.rounds import halves

TRACK = np.array([0, 0, 0, 1, 1, 2, 2])
VIDEO = np.array([0, 0, 0, 0, 0, 1, 1])


def test_halves_of_tracks_that_are_apart_find_each_other():
    found = halves.score(np.eye(3)[TRACK], TRACK, VIDEO)
    assert (found.reciprocal_rank, found.rank1) == (1.0, 1.0)


def test_a_half_that_looks_like_another_track_is_not_found_first():
    """Track 0's second half (its images 1 and 2) is track 1: its first half has no neighbor at all but equals, and
    comes second for nobody but itself."""
    features = np.array([[1.0, 0, 0], [0, 1, 0.1], [0, 1, 0.1], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    found = halves.score(features, TRACK, VIDEO)
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
    found = halves.score(features, track, video).operating
    assert list(found) == ["0.1"]  # 360 pairs: a hundredth of them is too few to say anything
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = [
        1 - unit[i] @ unit[j] for i in range(40) for j in range(i) if track[i] != track[j] and video[i] == video[j]
    ]
    assert len(distances) == 360
    assert np.mean(np.array(distances) < found["0.1"]["threshold"]) == pytest.approx(0.1, abs=1 / 360)
    same = [1 - unit[i] @ unit[i + 1] for i in range(0, 40, 2)]
    assert found["0.1"]["kept"] == np.mean(np.array(same) < found["0.1"]["threshold"])

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
    assert list(found) == ["0.1", "0.03"]  # 360 pairs: a hundredth of them is too few to say anything
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


def pairs(track, video, frame):
    """The pairs that count as different people, and the rates that they tell."""
    found = halves._pairs(np.eye(len(track)), track, video, frame)
    return [tuple(pair) for pair in found.of_M2.tolist()], found.rates


def test_tracks_at_the_same_time():
    """Of images enough that pairs of tracks that are there together suffice: 0 ends at 5, 1 is there until 9, 2 begins
    at 6; track 3, in another video, is with nobody."""
    track = np.repeat(np.arange(4), 80)
    frame = np.concatenate([np.linspace(*ends, 80).astype(int) for ends in ((1, 5), (5, 9), (6, 7), (1, 9))])
    found, rates = pairs(track, np.where(track == 3, 1, 0), frame)
    assert set(found) == {(0, 1), (1, 2)}
    assert (len(found), rates) == (2 * 80 * 80, [*halves.RATES])


@pytest.mark.parametrize("frame", [np.arange(240) // 12, np.full(240, -1)], ids=["never together", "no times"])
def test_any_tracks_of_a_video_where_few_are_together(frame):
    """Tracks that may be of one person tell nothing of a thousandth."""
    found, rates = pairs(np.repeat(np.arange(20), 12), np.repeat([0, 1], 120), frame)
    assert (len(found), rates) == (2 * 45 * 12 * 12, [*halves.TELLING])
    assert all((a < 10) == (b < 10) for a, b in found)


def made(spread, tracks=60, images=4):
    """Features of tracks around random directions, and the track of every image."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((tracks, 16))
    track = np.repeat(np.arange(tracks), images)
    return centers[track] + spread * rng.standard_normal((len(track), 16)), track


def scored(features, track):
    return halves.score(features, track, np.zeros(len(track), int), np.zeros(len(track), int))


def test_quality_is_the_mean_of_what_is_kept_at_the_rates():
    features, track = made(1.0)
    found = scored(features, track)
    assert list(found.operating) == ["0.1", "0.03", "0.01", "0.003", "0.001"]  # 28,320 pairs
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance, same = 1 - unit @ unit.T, track[:, None] == track
    upper = np.triu(np.ones_like(same), 1)
    kept = []
    for rate in halves.RATES:
        below = np.sort(distance[upper & ~same])[int(rate * 28320)]
        kept.append(float((distance[upper & same] < below).mean()))
    assert [each["kept"] for each in found.operating.values()] == pytest.approx(kept)
    assert found.quality == pytest.approx(np.mean(kept))
    assert 0.2 < found.quality < 0.9


def test_few_pairs_tell_the_rank_only():
    few = halves.score(np.random.default_rng(0).standard_normal((7, 4)), TRACK, VIDEO, FRAME)
    assert (few.operating, few.quality) == ({}, few.reciprocal_rank)
    assert len(few.resampled) == halves.RESAMPLES


def test_a_resample_is_the_score_of_the_tracks_that_are_drawn():
    """Tracks drawn twice count twice; pairs of a track and its own copy are no different people."""
    features, track = made(1.0)
    drawn = np.random.default_rng(0).integers(0, 60, 60)
    count = np.bincount(drawn, minlength=60)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    i, j = np.triu_indices(240, 1)
    distance, weight = 1 - (unit @ unit.T)[i, j], count[track[i]] * count[track[j]]
    same = track[i] == track[j]
    order = np.argsort(distance[~same])
    kept = []
    for rate in halves.RATES:
        wrong = np.cumsum(weight[~same][order])
        below = distance[~same][order][np.argmax(wrong > rate * wrong[-1])]
        kept.append(np.average(distance[same] < below, weights=count[track[i][same]]))
    assert scored(features, track).resampled[0] == pytest.approx(np.mean(kept))


def test_what_is_better_beyond_chance():
    before, after, equal = (scored(*made(spread)) for spread in (1.0, 0.7, 1.0))
    low, high = halves.rise(before, after)
    assert 0 < low < after.quality - before.quality < high
    assert halves.rise(before, equal) == (0, 0)
    assert halves.rise(after, before) == pytest.approx((-high, -low))

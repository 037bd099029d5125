import numpy as np
from hypothesis import given, settings

from data_prep.denoise.single_tracklet import clean
from tests.data_prep import naive


@settings(deadline=None)
@given(naive.videos(), naive.thresholds)
def test_equals_the_definition(video, sigma):
    features, _ = video
    rounds, left = naive.level1(features, sigma)
    cleaned = clean(features, sigma)
    np.testing.assert_array_equal(cleaned.round, rounds)
    np.testing.assert_array_equal(cleaned.keep, np.array(rounds) == 0)
    np.testing.assert_allclose(cleaned.distance[list(left)], list(left.values()), atol=2e-9)


def test_by_hand():
    # Three alike and one at 90 degrees: it leaves first, at 1 - cos 90 = 1; the rest are at distance 0.
    x = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    cleaned = clean(x, 0.2)
    np.testing.assert_array_equal(cleaned.round, [0, 1, 0, 0])
    np.testing.assert_allclose(cleaned.distance, [0, 1, 0, 0], atol=1e-9)


def test_one_image_alone_is_clean():
    cleaned = clean(np.array([[0.6, 0.8]], np.float32), 0.0)
    assert cleaned.keep.tolist() == [True]
    assert np.isnan(cleaned.distance[0])


def test_of_two_that_disagree_the_later_leaves():
    cleaned = clean(np.array([[1, 0], [0, 1]], np.float32), 0.2)
    assert cleaned.round.tolist() == [0, 1]
    assert np.isnan(cleaned.distance[0])


def test_the_limit_itself_excludes():
    # cos = 0.8 exactly in the threshold of float64: distance 0.2.
    x = np.array([[1, 0], [0.8, 0.6]], np.float64)
    assert clean(x, 0.2).round.tolist() == [0, 1]
    assert clean(x, 0.2 + 1e-8).round.tolist() == [0, 0]


def test_everybody_disagrees_until_one_is_left():
    cleaned = clean(np.eye(5, dtype=np.float32), 0.2)
    assert cleaned.round.tolist() == [0, 4, 3, 2, 1]


def test_a_long_tracklet_does_not_accumulate_rounding():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 16)) + 1.0
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    cleaned = clean(x, 0.3)
    stayed = x[cleaned.keep].astype(np.float64)
    assert 1 < len(stayed) < 400
    for i, own in enumerate(np.flatnonzero(cleaned.keep)):
        rest = np.delete(stayed, i, 0).mean(0)
        expected = 1 - stayed[i] @ rest / np.linalg.norm(stayed[i]) / np.linalg.norm(rest)
        assert abs(cleaned.distance[own] - expected) < 1e-7
        assert expected < 0.3

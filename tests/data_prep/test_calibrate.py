"""Thresholds from made-up distributions, and the distances they are read off."""

import numpy as np
import pytest

from cion_jax.neighbors.linkage import NO_PAIRS
from data_prep.denoise import calibrate
from data_prep.denoise.calibrate import Samples
from data_prep.denoise.settings import CalibrationSettings

DEFAULT = CalibrationSettings()


def made_up(count=1001):
    """One person's images at 0 .. 0.4, strangers at 0.2 .. 0.6; centroids at 0 .. 0.4 and 0.1 .. 1.1."""
    return Samples(*(np.linspace(a, b, count) for a, b in ((0, 0.4), (0.2, 0.6), (0, 0.4), (0.1, 1.1))))


def test_thresholds_of_made_up_distributions():
    sigma_cst, sigma_drm = calibrate.thresholds(made_up(), DEFAULT)
    assert sigma_cst == pytest.approx(0.3, abs=1e-3)  # a quarter of either kind is on the wrong side
    assert sigma_drm == pytest.approx(0.101, abs=1e-9)  # one in a thousand of 0.1 .. 1.1


def test_too_few_distances_give_no_thresholds():
    assert calibrate.thresholds(made_up(30), DEFAULT) is not None
    assert calibrate.thresholds(made_up(29), DEFAULT) is None


def test_crossing_by_hand():
    assert calibrate.crossing(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6])) == 4  # one of four each
    assert calibrate.crossing(np.array([1.0]), np.array([2.0])) == 2


def test_distances_of_a_video_by_hand():
    # Tracklet 0: x, x, y; tracklet 1: z, z. Images 0 and 3 were on one frame.
    x = np.eye(3)[[0, 0, 1, 2, 2]]
    found = calibrate.sample(x, np.array([0, 0, 0, 1, 1]), (np.array([0]), np.array([3])))
    halfway, mean = 1 - 1 / np.sqrt(2), 1
    np.testing.assert_allclose(found.image, [halfway, halfway, mean, 0, 0], atol=1e-9)
    np.testing.assert_allclose(found.image_apart, [1, 1], atol=1e-9)
    np.testing.assert_allclose(found.centroid, [halfway, 0], atol=1e-9)  # x against x + y; z against z
    np.testing.assert_allclose(found.centroid_apart, [1], atol=1e-9)


def test_halves_are_halves_in_time():
    found = calibrate.sample(np.eye(3)[[0, 0, 1, 1]], np.zeros(4, np.int64), NO_PAIRS)
    np.testing.assert_allclose(found.centroid, [1], atol=1e-9)


def test_single_images_have_no_distance_of_their_own():
    found = calibrate.sample(np.eye(2), np.array([0, 1]), NO_PAIRS)
    assert [len(v) for v in (found.image, found.image_apart, found.centroid, found.centroid_apart)] == [0, 0, 0, 0]


def test_random_pairs_are_of_two_tracklets():
    tracklet = np.repeat(np.arange(5), 4)
    i, j = calibrate.random_pairs(tracklet, np.random.default_rng(0))
    assert len(i) > 5
    assert (tracklet[i] != tracklet[j]).all()
    assert len(calibrate.random_pairs(np.zeros(4, np.int64), np.random.default_rng(0))[0]) == 0


def test_many_distances_are_thinned():
    found = calibrate.joined([made_up(), made_up()], 100, np.random.default_rng(0))
    assert len(found.image) == len(found.centroid_apart) == 100

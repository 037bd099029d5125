"""What a query's own camera costs, by hand: six gallery images, two matches, one that the protocol takes out."""

import numpy as np
import pytest

from benchmarks.camera_bias import measured

DISTANCE = np.array([0.1, 0.2, 0.3, 0.05, 0.4, 0.6])
MATCH, JUNK = np.array([1, 4]), np.array([3])
OWN = np.array([True, False, True, True, False, False])  # strangers 0 and 2, and the image that is taken out


def _query(own=OWN, seed=0):
    return measured(DISTANCE, MATCH, JUNK, own, np.random.default_rng(seed))


def test_strangers_of_the_own_camera_are_taken_out():
    query = _query()
    assert query.ap == pytest.approx((1 / 2 + 2 / 4) / 2)  # matches at ranks 2 and 4: what is taken out has no rank
    assert query.without_own == pytest.approx(1.0)  # stranger 5 alone is left, behind both


def test_the_comparison_takes_as_many_strangers_out():
    """Of strangers 0, 2 and 5 two are out: 0 and 2, 0 and 5, 2 and 5."""
    expected = {1.0, (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2}
    found = {_query(seed=seed).without_others for seed in range(50)}
    assert sorted(found) == pytest.approx(sorted(expected))


def test_the_nearest_stranger_and_its_chance():
    assert (_query().nearest_own, _query().chance) == (1.0, pytest.approx(2 / 3))
    assert _query(own=~OWN).nearest_own == 0.0


def test_without_strangers_of_the_camera_nothing_changes():
    query = _query(own=np.zeros(6, bool))
    assert query.ap == query.without_own == query.without_others
    assert query.chance == 0

import numpy as np
import pytest

from data_prep.denoise import nearest_member
from tests.data_prep import naive


def test_the_nearest_of_the_group_by_hand():
    means = np.array([[1, 0], [0, 2.0], [0.6, 0.8], [1, 0], [3, 0]])
    found = nearest_member.nearest(means, np.array([0, 0, 0, 1, -1]), 4096)
    np.testing.assert_allclose(found, [0.4, 0.2, 0.2, np.nan, np.nan], atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_blocks_do_not_matter(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    means, group = rng.standard_normal((40, 3)), rng.integers(-1, 4, 40)
    monkeypatch.setattr(nearest_member, "_BLOCK", 3)
    found = nearest_member.nearest(means, group, 4096)
    for i, apart in enumerate(found):
        others = [naive.dist(means[i], means[j]) for j in range(40) if j != i and group[j] == group[i] >= 0]
        assert apart == pytest.approx(min(others)) if others else np.isnan(apart)


def test_of_a_huge_group_an_even_sample_is_compared_with():
    means = np.array([[1, 0], [0.6, 0.8], [0, 1.0]])  # compared with the first and the last
    np.testing.assert_allclose(nearest_member.nearest(means, np.zeros(3, int), 2), [1, 0.2, 1], atol=1e-9)


def test_tracklets_of_a_video():
    # Tracklets 0 and 2 are one identity; the last image has none.
    features = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.6, 0.8], [1, 0]])
    found = nearest_member.within_video(features, np.array([0, 1, 2, 2, -1]), np.array([0, 1, 0, 0, -1]), 4096)
    np.testing.assert_allclose(found, [0.4, np.nan, 0.4, 0.4, np.nan], atol=1e-9)
    assert np.isnan(nearest_member.within_video(features[:2], np.array([-1, -1]), np.array([-1, -1]), 4096)).all()

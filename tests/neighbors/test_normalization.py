"""Camera means and the spread within tracklets, by hand."""

import numpy as np
import pytest

from cion_jax.neighbors import normalization


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_means_by_hand():
    """Two cameras of two images each, nothing varies within a tracklet.

    About their means (0.96, 0) and (-0.96, 0) images spread by 4 x 0.28^2 / (4 - 2) = 0.1568, the means about that of
    all by 0.96^2 - 0.1568 / 2 = 0.8432. So a mean of two counts 0.8432 / (0.8432 + 0.1568 / (3 x 2)) = 0.969939.
    """
    rows = np.array([[0.96, 0.28], [0.96, -0.28], [-0.96, 0.28], [-0.96, -0.28]], np.float32)
    camera, mean = np.array([0, 0, 1, 1]), 0.96 * 0.969939
    found = normalization.learn(rows, camera, np.arange(4), 3)
    assert found.matrix is None
    np.testing.assert_allclose(found.means, [[mean, 0], [-mean, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(found(rows, camera)[0], unit(np.array([0.96 - mean, 0.28])), atol=1e-5)
    # A camera that nothing was learned from loses the mean of all, which is 0 here.
    np.testing.assert_allclose(found(rows[:1], np.array([-1])), rows[:1], atol=1e-6)


def test_what_varies_within_tracklets_counts_less_by_hand():
    """Within tracklets all varies along (1, 0): twice the even spread there, and none across.

    Two free differences of width 2 make shrinkage 1/2 a whole one, so it is divided by sqrt(2 + 1) and by 1.
    """
    rows = np.array([[0.6, 0.8], [-0.6, 0.8], [0.6, -0.8], [-0.6, -0.8]], np.float32)
    found = normalization.learn(rows, np.zeros(4, int), np.array([0, 0, 1, 1]), 0.5)
    expected = unit(np.array([0.6 / 3**0.5, 0.8]))
    np.testing.assert_allclose(np.sort(np.abs(found(rows[:1], np.zeros(1, int))[0])), np.sort(expected), atol=1e-6)
    similar = found(rows[:2], np.zeros(2, int))
    assert similar[0] @ similar[1] == pytest.approx((0.64 - 0.12) / (0.64 + 0.12), abs=1e-5)


def test_means_of_other_rows():
    rows = np.array([[0.6, 0.8], [0.6, -0.8]], np.float32)
    learned = normalization.learn(rows, np.zeros(2, int), np.zeros(2, int), 3)
    other = learned.with_means_of(rows[::-1] * 0.5, np.array([0, 1]))
    np.testing.assert_allclose(other.means, [[0.3, -0.4], [0.3, 0.4], [0.3, 0]], atol=1e-6)
    assert other.matrix is learned.matrix is not None


def test_in_blocks_it_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((40, 8)))
    group, tracklet = np.arange(40) % 3, np.arange(40) // 4
    whole = normalization.learn(rows, group, tracklet, 3)(rows, group)
    monkeypatch.setattr(normalization, "_BLOCK", 7)
    blocks = normalization.learn(rows, group, tracklet, 3)(rows, group)
    np.testing.assert_allclose(blocks @ blocks.T, whole @ whole.T, atol=1e-5)

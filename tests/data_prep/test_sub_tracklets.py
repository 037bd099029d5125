"""Sub-tracklets, by hand."""

import numpy as np
from scipy.cluster import hierarchy

from cion_jax.neighbors.labels import numbered
from data_prep.denoise import sub_tracklets


def test_short_tracklets_stay_images():
    tracklet = np.repeat([0, 1], [3, 2])
    rows = np.random.default_rng(0).standard_normal((5, 4))
    assert sub_tracklets.divide(rows, tracklet, 8, 8).tolist() == [0, 1, 2, 3, 4]
    assert sub_tracklets.divide(rows, tracklet, 1, 1).tolist() == [0, 0, 0, 1, 1]
    assert sub_tracklets.divide(rows, tracklet, 2, 1).tolist() == [0, 0, 0, 1, 2]  # only what is longer is divided
    assert sub_tracklets.divide(rows, tracklet, 0, 9).tolist() == [0, 1, 2, 3, 4]  # never more pieces than images
    assert sub_tracklets.divide(np.zeros((0, 4)), np.zeros(0, np.int64), 8, 8).tolist() == []


def test_a_long_tracklet_is_divided_by_looks():
    # Two people in turns, and seven odd crops, each at right angles to everything else.
    odd = np.eye(16)[:7]
    first, second = np.eye(16)[14], np.eye(16)[15]
    features = np.concatenate([np.stack([first, second] * 20), odd])
    found = sub_tracklets.divide(features, np.zeros(47, np.int64), 8, 8)
    assert found.max() == 7
    assert len(set(found[:40:2])) == len(set(found[1:40:2])) == 1
    assert found[0] == 0
    again = sub_tracklets.divide(np.concatenate([features[:2], features]), np.repeat([0, 1], [2, 47]), 8, 8)
    assert again.tolist() == [0, 1, *(found + 2)]


def test_a_tree_is_cut_where_scipy_cuts_it():
    rng = np.random.default_rng(0)
    for count in (9, 20, 100):
        x = rng.standard_normal((count, 5))
        tree = hierarchy.linkage(x, "average", "cosine")
        expected = numbered(hierarchy.cut_tree(tree, 8)[:, 0])
        assert sub_tracklets.divide(x, np.zeros(count, int), 5, 8).tolist() == expected.tolist()


def test_a_more_varied_tracklet_is_divided_into_more():
    """Groups of two images that are 10 degrees apart in two tracklets and 30 in a third, of four groups."""

    def at(*degrees: float) -> np.ndarray:
        angles = np.radians(np.repeat(degrees, 2))
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    rows = np.concatenate([at(0, 10, 20), at(50, 60, 70), at(0, 30, 60, 90), at(0, 9, 18, 27)])
    tracklet = np.repeat(np.arange(4), [6, 6, 8, 8])
    found = sub_tracklets.divide(rows, tracklet, 5, 3)
    assert [len(np.unique(found[tracklet == one])) for one in range(4)] == [3, 3, 4, 3]
    assert found[tracklet == 2].tolist() == [6, 6, 7, 7, 8, 8, 9, 9]

import numpy as np
from hypothesis import given, settings

from data_prep.denoise.single_video import merge, reassign
from tests.data_prep import naive


def level1(features, tracklet, sigma):
    groups = [features[tracklet == t] for t in range(tracklet.max() + 1)]
    return np.concatenate([np.array(naive.level1(g, sigma)[0]) == 0 for g in groups])


@settings(deadline=None)
@given(naive.videos(), naive.thresholds, naive.thresholds)
def test_equals_the_definition(video, sigma_cst, sigma_drm):
    features, tracklet = video
    keep = level1(features, tracklet, sigma_cst)
    expected, nearest = naive.level2a(features, tracklet.tolist(), keep, sigma_cst)
    moved, distance = reassign(features, tracklet, keep, sigma_cst)
    assert moved.tolist() == expected
    np.testing.assert_allclose(distance[list(nearest)], list(nearest.values()), atol=2e-9)
    assert np.isnan(distance[keep]).all()
    assert merge(features, moved, sigma_drm).tolist() == naive.level2b(features, expected, sigma_drm)


def test_an_image_moves_to_the_nearest_other_tracklet_or_is_discarded():
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0.1], [0.1, 1, 0]], np.float64)
    tracklet = np.array([0, 0, 0, 1, 2])
    moved, distance = reassign(x, tracklet, np.array([True, False, False, True, True]), 0.2)
    assert moved.tolist() == [0, 1, -1, 1, 2]  # equally near to 1 and 2: the earlier takes it
    np.testing.assert_allclose(distance[1], 1 - 1 / np.sqrt(1.01), atol=1e-9)
    np.testing.assert_allclose(distance[2], 1 - 0.1 / np.sqrt(1.01), atol=1e-9)


def test_an_only_tracklet_takes_nothing_back():
    x = np.array([[1, 0], [0, 1]], np.float32)
    moved, distance = reassign(x, np.array([0, 0]), np.array([True, False]), 2.0)
    assert moved.tolist() == [0, -1]
    assert np.isnan(distance).all()


def test_an_empty_video():
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    moved, distance = reassign(*nothing, np.zeros(0, bool), 0.2)
    assert len(moved) == len(distance) == 0
    assert len(merge(*nothing, 0.18)) == 0


def test_chains_merge_and_the_threshold_itself_links():
    angle = np.arccos(0.82) * np.arange(3)  # neighbors at distance 0.18, the ends far apart
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert merge(x, np.array([0, 1, 2]), 0.18).tolist() == [0, 0, 0]
    assert merge(x, np.array([0, 1, 2]), 0.18 - 1e-8).tolist() == [0, 1, 2]


def test_centroids_are_recomputed_after_the_move():
    # Tracklet 1 was at right angles to tracklet 0; the image that moved in brings it to 1 - 0.3 / sqrt(0.9).
    x = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float64)
    assert merge(x, np.array([0, 1, 1]), 0.683).tolist() == [0, 1, 1]
    assert merge(x, np.array([0, 1, 1]), 0.684).tolist() == [0, 0, 0]

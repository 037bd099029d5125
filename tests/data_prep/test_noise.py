import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cion_jax.neighbors import cosine
from data_prep.denoise import noise as noises
from data_prep.denoise.settings import DEFAULT_SEARCH, SearchSettings, Thresholds
from tests.data_prep import naive


def measure(parts, count, sigma_cst, sigma_drm):
    thresholds = Thresholds(sigma_cst, sigma_drm, 0)
    return noises.measure(parts, cosine.centroids(parts, count), thresholds, DEFAULT_SEARCH)[0]


def measure_within(parts, sigma_cst, sigma_drm):
    """The same of identities that lie in one piece each; those of every piece are numbered from 0."""
    width = parts[0][0].shape[1]
    most = sum(int(labels.max(initial=-1)) + 1 for _, labels in parts)
    within = noises.WithinVideos(np.empty((most, width)), sigma_cst)
    for features, labels in parts:
        within.add(cosine.unit(features), labels)
    return within, noises.total(within.means, within.noisy, sigma_drm, DEFAULT_SEARCH)


@settings(deadline=None)
@given(naive.videos(), naive.thresholds, naive.thresholds, st.integers(0, 1000))
def test_equals_the_definition(video, sigma_cst, sigma_drm, seed):
    features, tracklet = video
    labels = np.where(np.random.default_rng(seed).random(len(tracklet)) < 0.2, -1, tracklet)
    names, labels[labels >= 0] = np.unique(labels[labels >= 0], return_inverse=True)
    cst, drm = naive.noise(features, labels.tolist(), sigma_cst, sigma_drm)
    half = len(labels) // 2  # a data set in two pieces, an identity may lie in both
    parts = [(features[:half], labels[:half]), (features[half:], labels[half:])]
    noise = measure(parts, len(names), sigma_cst, sigma_drm)
    assert (noise.consistency, noise.discrimination) == (cst, drm)
    assert noise.per_identity == (cst + drm) / max(len(names), 1)


def test_by_hand():
    # Identity 0: x axis and 37 degrees off it (cos 0.8): centroid half way, radius 1 - cos(18.4) = 0.0513.
    # Identities 1 and 2: the y axis, both. Identity 3 of one image, far from all.
    x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    labels = np.array([0, 0, 1, 2, 3])
    noise = measure([(x, labels)], 4, 0.05, 0.18)
    assert (noise.consistency, noise.discrimination) == (1, 2)
    assert noise.per_identity == 3 / 4
    assert measure([(x, labels)], 4, 0.06, 0.18).consistency == 0


def test_both_thresholds_count_as_noise():
    # mu(0) = 1. Two identities at cos 0.82; one identity of x and -x, whose centroid points nowhere: distance 1.
    pair = np.array([[1, 0], [0.82, np.sqrt(1 - 0.82**2)]])
    assert measure([(pair, np.array([0, 1]))], 2, 0.2, 0.18).discrimination == 2
    opposite = np.array([[1, 0], [-1, 0]])
    assert measure([(opposite, np.array([0, 0]))], 1, 1.0, 0.18).consistency == 1
    assert measure([(opposite, np.array([0, 0]))], 1, 1.0 + 1e-8, 0.18).consistency == 0


def test_nothing_has_no_noise():
    assert measure([], 0, 0.2, 0.18).per_identity == 0
    assert measure([(np.zeros((2, 3), np.float32), np.array([-1, -1]))], 0, 0.2, 0.18).per_identity == 0


def test_means_over_pieces():
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((30, 5)), rng.integers(-1, 4, 30)
    parts = [(x[:11], labels[:11]), (x[11:], labels[11:])]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = [unit[labels == k].mean(0) for k in range(4)]
    np.testing.assert_allclose(cosine.centroids(parts, 4), expected, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, -1], [-1, -1, -1]])
def test_images_without_identity_have_no_distance(labels):
    labels = np.array(labels)
    apart = cosine.to_own_centroid(np.eye(3), labels, cosine.centroids([(np.eye(3), labels)], 1))
    np.testing.assert_array_equal(np.isnan(apart), labels < 0)


def test_what_is_shorter_than_rounding_has_no_direction():
    rows = np.array([[3, 4], [1e-7, 0], [0, 0]])
    np.testing.assert_array_equal(cosine.unit(rows), [[0.6, 0.8], [0, 0], [0, 0]])
    np.testing.assert_array_equal(cosine.unit(rows, shortest=0), [[0.6, 0.8], [1, 0], [0, 0]])


def test_what_is_not_finite_stays_as_it_is():
    rows = np.array([[np.nan, 1], [np.inf, 1]], np.float32)
    np.testing.assert_array_equal(cosine.unit(rows, np.float32), rows)


def test_of_many_identities_a_sample_is_compared_and_says_so():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 3))
    exact = noises.discrimination(rows, 0.1)
    assert exact > 1000
    found = noises.total(rows, 0, 0.1, SearchSettings(exact_rows=200, noise_sample=100))
    assert (found.compared, found.identities) == (100, 300)
    assert 0 < found.error < 0.2 * exact
    assert abs(found.discrimination - exact) < 3 * found.error
    assert noises.sampled_discrimination(rows, 0.1, 300)[0] == exact  # a sample of all is exact


def test_distances_to_the_own_centroid_are_kept():
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    labels = np.array([0, 0, -1])
    parts = [(x[:1], labels[:1]), (x[1:], labels[1:])]
    _, distance = noises.consistency(parts, cosine.centroids(parts, 1), 0.2)
    np.testing.assert_allclose(distance, [1 - 0.5**0.5, 1 - 0.5**0.5, np.nan])


@settings(deadline=None, max_examples=30)
@given(st.lists(naive.videos(), min_size=1, max_size=3), naive.thresholds, naive.thresholds, st.integers(0, 1000))
def test_while_videos_go_by_the_same_is_measured(videos, sigma_cst, sigma_drm, seed):
    rng, local, whole, count = np.random.default_rng(seed), [], [], 0
    for features, tracklet in videos:
        labels = np.where(rng.random(len(tracklet)) < 0.2, -1, tracklet)
        names, labels[labels >= 0] = np.unique(labels[labels >= 0], return_inverse=True)
        features = np.resize(features, (len(features), 4))
        local.append((features, labels))
        whole.append((features, np.where(labels >= 0, labels + count, -1)))
        count += len(names)
    within, noise = measure_within(local, sigma_cst, sigma_drm)
    assert noise == measure(whole, count, sigma_cst, sigma_drm)
    np.testing.assert_array_equal(within.means, cosine.centroids(whole, count))

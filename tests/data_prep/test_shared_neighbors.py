"""Identities by shared neighbors: made-up cameras and people, and what happened to one video by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cion_jax.neighbors import cosine, normalization, reciprocal, score, search, shared
from cion_jax.neighbors.linkage import NO_PAIRS
from data_prep.config import Config
from data_prep.denoise import shared_neighbors

DEFAULT = Config().denoising
PLAIN = replace(DEFAULT, calibrate=False)
SHRINKAGE, TRUST = DEFAULT.shared_neighbors.shrinkage, DEFAULT.shared_neighbors.trust


def normalize(rows, video, tracklet, shrinkage):
    return normalization.learn(rows, video, tracklet, shrinkage)(rows, video)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def world(people=12, videos=4, images=4, seed=0, camera=1.5, noise=0.35):
    """Everybody once in every video; a video adds the same vector to all its images."""
    rng = np.random.default_rng(seed)
    looks, light = rng.standard_normal((people, 32)), camera * rng.standard_normal((videos, 32))
    video, person = (a.ravel() for a in np.meshgrid(np.arange(videos), np.arange(people), indexing="ij"))
    truth, video = np.repeat(person, images), np.repeat(video, images)
    rows = unit(looks[truth] + light[video] + noise * rng.standard_normal((len(truth), 32)))
    tracklet = np.repeat(np.arange(people * videos), images)
    return rows, video, tracklet, truth


def nodes(rows, video, tracklet, boxed=True):
    return shared.Nodes(rows, np.ones(len(rows)), video, tracklet, np.full(len(rows), boxed))


def test_people_are_found_across_cameras_and_strays_come_home():
    rows, video, tracklet, truth = world()
    tracklet[0] = tracklet[4]  # an image of the first person among those of the second
    order = np.argsort(tracklet, kind="stable")
    rows, video, tracklet, truth = rows[order], video[order], tracklet[order], truth[order]
    found = shared_neighbors.cluster(
        nodes(rows, video, tracklet).normalized(SHRINKAGE, TRUST), NO_PAIRS, NO_PAIRS, DEFAULT
    )
    assert score.score(found.identity, truth)["pairwise_f1"] == 1
    plain = shared_neighbors.cluster(nodes(rows, video, tracklet), NO_PAIRS, NO_PAIRS, DEFAULT)
    assert score.score(plain.identity, truth)["pairwise_f1"] < 0.9  # cameras differ more than people


def test_whoever_co_occurs_stays_apart_through_everybody_else():
    rows, video, tracklet, truth = world(people=6)
    twin = truth == 1
    rows[twin] = unit(rows[truth == 0] + 1e-3 * rows[twin])  # two who look the same
    both = np.flatnonzero((truth == 0) & (video == 0))[:1], np.flatnonzero(twin & (video == 0))[:1]
    free = shared_neighbors.cluster(nodes(rows, video, tracklet).normalized(SHRINKAGE, TRUST), NO_PAIRS, both, PLAIN)
    assert free.identity[both[0]] == free.identity[both[1]]
    apart = shared_neighbors.cluster(nodes(rows, video, tracklet).normalized(SHRINKAGE, TRUST), both, both, PLAIN)
    assert apart.identity[both[0]] != apart.identity[both[1]]
    # Without boxes two crops that look the same count as one person who was found twice.
    double = shared_neighbors.cluster(
        nodes(rows, video, tracklet, boxed=False).normalized(SHRINKAGE, TRUST), both, both, PLAIN
    )
    assert double.identity.tolist() == free.identity.tolist()


@pytest.mark.parametrize(("people", "videos", "images", "neighbors"), [(12, 4, 4, 14), (30, 2, 3, 5), (5, 6, 5, 24)])
def test_a_tenth_fewer_neighbors_than_an_identity_has_nodes(people, videos, images, neighbors):
    """Identities of 16, 6 and 30 nodes: of the steps 14, 5 and 24 are the last that 1.1 times do not exceed them."""
    rows, video, tracklet, truth = world(people, videos, images)
    found = shared_neighbors.cluster(
        nodes(rows, video, tracklet).normalized(SHRINKAGE, TRUST), NO_PAIRS, NO_PAIRS, DEFAULT
    )
    assert found.threshold == pytest.approx(DEFAULT.shared_neighbors.threshold / np.sqrt(neighbors))
    assert score.score(found.identity, truth)["pairwise_f1"] == 1


def test_no_more_neighbors_than_told():
    rows, video, tracklet, _ = world()
    few = replace(DEFAULT, shared_neighbors=replace(DEFAULT.shared_neighbors, k1=5))
    found = shared_neighbors.cluster(nodes(rows, video, tracklet).normalized(SHRINKAGE, TRUST), NO_PAIRS, NO_PAIRS, few)
    assert found.threshold == pytest.approx(few.shared_neighbors.threshold / np.sqrt(5))


def test_the_usual_size_is_that_of_the_median_image():
    identity = np.array([0, 1, 1, 1, 2, 2, 2, 2])
    assert shared.usual_size(identity, np.ones(8)) == 3
    assert shared.usual_size(identity, np.array([9, 1, 1, 1, 1, 1, 1, 1])) == 1
    assert shared.usual_size(identity, np.array([1, 1, 1, 1, 9, 1, 1, 1])) == 4


def test_likeness_is_the_median_cosine_with_the_nearest_of_the_tracklet():
    rows = unit(np.array([[1, 0], [1, 0], [3, 4], [0, 1]]))
    near = np.array([[1], [0], [3], [2]])  # cosines 1, 1, 0.8, 0.8

    def likeness(*tracklet, near=near, least=0.2):
        return shared.likeness(nodes(rows, np.zeros(4, int), np.array(tracklet)), near, least)

    assert likeness(0, 0, 0, 1) == pytest.approx(1)  # of 1, 1 and 0.6
    assert likeness(0, 1, 1, 2) == pytest.approx(0.6)
    assert likeness(0, 1, 2, 2) == pytest.approx(0.8)
    assert shared.likeness(nodes(rows[[0, 3]], np.zeros(2, int), np.zeros(2, int)), near[:2], 0.2) == 0.2
    assert likeness(0, 1, 2, 3) == pytest.approx(0.9)  # all are alone: of 1, 1, 0.8 and 0.8
    assert likeness(0, 1, 2, 3, near=np.zeros((4, 0), int)) is None


def test_who_shares_neighbors_but_looks_unlike_is_not_similar():
    rows = unit(np.array([[1, 0], [0, 1], [0.6, 0.8]]))
    near = np.array([[2, 1], [2, 0], [1, 0]])  # everybody knows everybody
    own = DEFAULT.shared_neighbors
    (i, j), found = shared.similarities(rows, near, own, 1.0, DEFAULT.search)
    overlap = dict(zip(zip(i.tolist(), j.tolist(), strict=True), found.tolist(), strict=True))
    assert overlap[0, 1] == 0
    assert 0 < overlap[0, 2] / 0.6 == pytest.approx(overlap[1, 2] / 0.8)  # all three overlap alike: one and the same
    _, alike = shared.similarities(rows, near, own, 0.5, DEFAULT.search)
    assert sorted(alike) == pytest.approx([0, overlap[0, 2] / 0.6, overlap[0, 2] / 0.6])


def test_where_people_who_met_look_alike_the_threshold_rises():
    """Everybody looks like everybody: without boxes all are one, who met with boxes keeps the others apart, too."""
    rng = np.random.default_rng(5)
    rows = unit(np.ones(8) + 0.2 * rng.standard_normal((24, 8)))
    met = np.arange(12), np.arange(12, 24)
    settings = replace(DEFAULT, calibration=replace(DEFAULT.calibration, min_pairs=12))
    thresholds = {}
    for boxes in (False, True):
        nodes = shared.Nodes(rows, np.ones(24), np.arange(24), np.arange(24), np.full(24, boxes))
        thresholds[boxes] = shared_neighbors.cluster(nodes, NO_PAIRS, met, settings)
    found = thresholds[True]
    assert found.threshold > thresholds[False].threshold
    assert found.threshold == pytest.approx(np.quantile(found.other, 0.97))
    few = replace(settings, calibration=replace(settings.calibration, min_pairs=13))
    assert shared_neighbors.cluster(nodes, NO_PAIRS, met, few).threshold == thresholds[False].threshold


def test_what_happened_to_a_video_by_hand():
    # Tracklet 0: x x y, tracklet 1: y y z; in the clustering x is 4, y 7 and z 9. z has no tracklet of its own.
    features = np.eye(3)[[0, 0, 1, 1, 1, 2]]
    done = shared_neighbors.levels(features, np.array([0, 0, 0, 1, 1, 1]), np.array([4, 4, 7, 7, 7, 9]))
    assert done.round.tolist() == [0, 0, 1, 0, 0, 1]
    assert done.tracklet.tolist() == [0, 0, 1, 1, 1, -1]
    assert done.identity.tolist() == [0, 0, 1, 1, 1, -1]
    np.testing.assert_allclose(done.distance, [0, 0, 1, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(done.nearest, [np.nan, np.nan, 0, np.nan, np.nan, 1], atol=1e-9)


def test_a_tie_belongs_to_the_earlier_and_an_only_tracklet_has_no_other():
    done = shared_neighbors.levels(np.eye(2), np.array([0, 0]), np.array([5, 3]))
    assert done.round.tolist() == [0, 1]
    assert done.identity.tolist() == [0, -1]
    assert np.isnan(done.nearest).all()
    assert np.isnan(done.distance[0])
    assert done.distance[1] == 1


def test_tracklets_of_one_identity_join_within_the_video():
    done = shared_neighbors.levels(np.eye(3), np.arange(3), np.array([8, 2, 8]))
    assert done.identity.tolist() == [0, 1, 0]
    assert (done.round == 0).all()


def test_normalized_features_forget_the_video():
    rows, video, tracklet, truth = world(noise=0.05)
    found = normalize(rows, video, tracklet, SHRINKAGE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    same = found[(truth == 3) & (video == 0)] @ found[(truth == 3) & (video == 1)].T
    other = found[(truth == 3) & (video == 0)] @ found[(truth == 4) & (video == 0)].T
    assert same.min() > 0.5 > other.max()


def test_an_odd_image_without_a_better_home_stays():
    rows, video, tracklet, _ = world()
    rows[5] = unit(np.random.default_rng(1).standard_normal(32))
    found = shared_neighbors.cluster(
        nodes(rows, video, tracklet).normalized(SHRINKAGE, TRUST), NO_PAIRS, NO_PAIRS, DEFAULT
    )
    assert found.identity[5] == found.identity[4]
    strangers = nodes(np.eye(2, dtype=np.float32), np.zeros(2, int), np.zeros(2, int))
    assert shared_neighbors.cluster(strangers, NO_PAIRS, NO_PAIRS, DEFAULT).identity.tolist() == [0, 0]


def test_what_varies_within_tracklets_counts_less():
    # Two tracklets, two images each; they differ along the first axis, images of each along the second.
    rows = unit(np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32))
    found = normalize(rows, np.zeros(4, int), np.array([0, 0, 1, 1]), 3)
    # Spread within: 0 and all of it, 0 and 2 times the average. It was seen in 4 - 2 = 2 differences, as many as there
    # are dimensions, so the shrinkage of 3 counts twice: axes are divided by sqrt(0 + 6) and sqrt(2 + 6).
    ratio = np.sqrt((2 + 6) / (0 + 6))
    np.testing.assert_allclose(np.abs(found[:, 0] / found[:, 1]), ratio, atol=1e-5)


def drawn(rows, video, tracklet):
    """[V, d] of every video what is subtracted."""
    return normalization.learn(rows, video, tracklet, SHRINKAGE).means[:-1]


def test_the_mean_of_a_video_counts_by_how_many_people_it_shows():
    # Two videos, means (1, 0) and (-1, 0); four tracklets of one image each are 1 away from their video's mean, so the
    # spread about it is 4 / (4 - 2) = 2. Half of that is expected of means of two: the variance of the videos' means is
    # 1 - 2 / 2 = 0, they say nothing, and only the mean of all is left.
    video, tracklet = np.array([0, 0, 1, 1]), np.arange(4)
    near = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]], np.float32)
    np.testing.assert_allclose(drawn(near, video, tracklet), np.zeros((2, 2)), atol=1e-6)
    # Three times as far apart the variance is 9 - 1 = 8, and a mean of two deviates by 2 / 2, of which a third is
    # taken: it counts 8 / (8 + 1 / 3).
    far = near * np.array([3, 1], np.float32)
    expected = [[3 * 0.96, 0], [-3 * 0.96, 0]]
    np.testing.assert_allclose(drawn(far, video, tracklet), expected, atol=1e-5)
    # One video has nothing to be compared with.
    np.testing.assert_allclose(drawn(far[:2], video[:2], tracklet[:2]), [[3, 0]], atol=1e-6)


def test_normalizing_in_blocks_is_the_same(monkeypatch):
    rows, video, tracklet, _ = world()
    whole = normalize(rows, video, tracklet, SHRINKAGE)
    monkeypatch.setattr(normalization, "_BLOCK", 7)
    np.testing.assert_allclose(normalize(rows, video, tracklet, SHRINKAGE), whole, atol=1e-5)


def test_normalizing_by_hand():
    # Video mean (1, 0): left are (0, 1) and (0, -1); two tracklets of one image vary in nothing.
    rows = np.array([[0.6, 0.8], [0.6, -0.8]], np.float32)
    np.testing.assert_allclose(normalize(rows, np.zeros(2, int), np.arange(2), 3), [[0, 1], [0, -1]], atol=1e-6)
    assert not normalize(rows[:1], np.zeros(1, int), np.zeros(1, int), 3).any()  # it is its video's mean


def test_beyond_the_exact_size_the_same_people_are_found(monkeypatch):
    """Lists from elsewhere, pruned overlaps, single precision: nothing of it matters to people who are far apart."""
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(15), 20)
    rows = cosine.unit(rng.standard_normal((15, 32))[person] + 0.3 * rng.standard_normal((300, 32)), np.float32)
    nodes = shared.Nodes(rows, np.ones(300), np.zeros(300, int), np.arange(300), np.zeros(300, bool))
    few = replace(DEFAULT, search=replace(DEFAULT.search, exact_rows=200, neighbor_sample=5))
    asked = []

    def pruned(*arguments):
        asked.append(arguments[5:])
        return reciprocal.overlaps(*arguments)

    monkeypatch.setattr(shared, "nearest", lambda rows, k, _: search.nearest(rows, k).astype(np.int32))
    monkeypatch.setattr(shared, "STEPS", (16,))
    monkeypatch.setattr(shared, "overlaps", pruned)
    found = [shared_neighbors.cluster(nodes, NO_PAIRS, NO_PAIRS, how).identity for how in (DEFAULT, few)]
    assert found[0].tolist() == found[1].tolist() == person.tolist()
    assert asked == [(), (), (3 * 16, np.float32)]  # of all; of a sample to find the number of neighbors; of all


def test_beyond_the_exact_size_the_number_of_neighbors_is_found_around_a_sample(caplog):
    """Everybody has 20 images, so 16 neighbors are found by all of them, and by what surrounds ten of them."""
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(40), 20)
    rows = cosine.unit(rng.standard_normal((40, 64))[person] + 0.3 * rng.standard_normal((800, 64)), np.float32)
    nodes = shared.Nodes(rows, np.ones(800), np.zeros(800, int), np.arange(800), np.zeros(800, bool))
    few = replace(DEFAULT, search=replace(DEFAULT.search, exact_rows=500, neighbor_sample=10))
    caplog.set_level("INFO")
    found = [shared_neighbors.cluster(nodes, NO_PAIRS, NO_PAIRS, how).identity for how in (DEFAULT, few)]
    assert [
        record.message.split(" with ")[1].split(",")[0] for record in caplog.records if " with " in record.message
    ] == ["16 neighbors"] * 2
    assert found[0].tolist() == found[1].tolist() == person.tolist()

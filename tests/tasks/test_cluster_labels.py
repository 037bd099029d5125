"""Pseudo labels by shared neighbors, by hand and on made-up cameras; how batches of clusters are filled."""

import dataclasses

import numpy as np
import pytest

from cion_jax.data import cluster_batches
from cion_jax.data.groups import PlanError
from cion_jax.data.image_files import Relabeled
from cion_jax.neighbors import score
from cion_jax.neighbors.shared import Search
from cion_jax.tasks.cluster import shared_neighbors
from cion_jax.tasks.cluster.config import SharedNeighborsConfig

OWN, ALL = SharedNeighborsConfig(), Search()


def made_up(people=20, images=12, cameras=3, light=1.5, noise=0.35, seed=0):
    """(features, camera, video, frame, truth): every camera has a light of its own; two people share a frame."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(people), images)
    camera = np.arange(len(truth)) % cameras
    place = rng.standard_normal((people, 32))[truth] + light * rng.standard_normal((cameras, 32))[camera]
    features = place + noise * rng.standard_normal((len(truth), 32))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    frame = (truth // 2) * images + np.arange(len(truth)) % images
    return features.astype(np.float32), camera, camera, frame, truth


def test_people_are_found_across_cameras():
    features, camera, video, frame, truth = made_up()
    found = shared_neighbors.clusters(features, camera, video, frame, OWN, ALL)
    assert score.score(found, truth)["pairwise_f1"] > 0.95
    dark = dataclasses.replace(OWN, center=False)
    apart = shared_neighbors.clusters(features, camera, video, frame, dark, ALL)
    assert score.score(apart, truth)["pairwise_f1"] < 0.7


def test_images_of_one_moment_are_of_two_people_unless_they_look_like_one():
    features, camera, video, frame, _ = made_up(people=6, images=24, noise=0.6)
    twins = np.concatenate([features, features[:6]])  # the same person found twice on one frame
    more = [np.concatenate([array, array[:6]]) for array in (camera, video, frame)]
    found = shared_neighbors.clusters(twins, *more, OWN, ALL)
    assert np.all(found[:6] == found[-6:])
    free = dataclasses.replace(OWN, cannot_link=False)
    whole = shared_neighbors.clusters(features, camera, video, frame, free, ALL)
    rows = shared_neighbors.without_cameras(features, camera)
    cosines = np.where(whole[:, None] == whole, rows @ rows.T, 1)
    pair = np.unravel_index(cosines.argmin(), cosines.shape)  # of one cluster, and as unlike as any two of one
    frame[list(pair)], video[list(pair)] = 10**6, 0
    apart = shared_neighbors.clusters(features, camera, video, frame, OWN, ALL)
    assert apart[pair[0]] != apart[pair[1]]
    together = shared_neighbors.clusters(features, camera, video, frame, free, ALL)
    assert together[pair[0]] == together[pair[1]]


def test_moments_by_hand():
    video = np.array([0, 0, 1, 0, -1, -1, 0])
    frame = np.array([5, 7, 5, 5, 5, 5, 5])
    pairs = shared_neighbors.at_one_moment(video, frame)
    assert sorted(zip(*pairs, strict=True)) == [(0, 3), (0, 6), (3, 6)]
    nothing = shared_neighbors.at_one_moment(np.full(4, -1), np.arange(4))
    assert [len(end) for end in nothing] == [0, 0]


def test_small_clusters_are_outliers():
    known = [array[:-7] for array in made_up()[:-1]]  # five images of the last person
    whole = shared_neighbors.clusters(*known, dataclasses.replace(OWN, min_images=2), ALL)
    sizes = np.where(whole >= 0, np.bincount(whole + 1)[whole + 1], 0)
    smallest = int(sizes[sizes > 0].min())
    for least in (smallest, smallest + 1):
        found = shared_neighbors.clusters(*known, dataclasses.replace(OWN, min_images=least), ALL)
        assert np.array_equal(found, np.where(sizes >= least, whole, -1))
    assert 0 < (found < 0).mean() < 0.5


def test_batches_where_there_are_fewer_clusters_than_they_take():
    chosen = cluster_batches.passes(np.random.default_rng(0), 3, 5, 4)
    assert chosen.shape == (5, 4)
    assert sorted(chosen.ravel()[:18].tolist()) == sorted([0, 1, 2] * 6)


def test_batches_have_distinct_clusters_and_every_pass_is_another():
    chosen = cluster_batches.passes(np.random.default_rng(0), 11, 9, 4)
    assert all(len(set(batch)) == 4 for batch in chosen)
    assert len({tuple(batch) for batch in chosen}) == 9
    plan = [
        cluster_batches.ClusterPlan([np.arange(40) % 5], np.zeros(40, int), 1, e, 4, 2, 3).group(3) for e in (0, 0, 1)
    ]
    assert np.array_equal(plan[0], plan[1])
    assert not np.array_equal(plan[0], plan[2])


def test_epochs_end_where_the_next_has_other_clusters():
    timeline = cluster_batches.ClusterTimeline(3, 4, 8, 2, ends=1)
    assert timeline.phases(4) == [range(4, 8)]
    assert timeline.phases(8) == []
    assert (timeline.total_steps, timeline.at(7).epoch, timeline.at(8).epoch) == (12, 1, 2)
    with pytest.raises(IndexError):
        timeline.at(12)
    with pytest.raises(PlanError, match=r"got config.data.batch_size=9; choose a multiple of 2, e.g. 8"):
        cluster_batches.ClusterTimeline(3, 4, 9, 2)


def test_two_readers_are_one():
    class Reader:
        def __init__(self, *names):
            self.names = names

        def __len__(self):
            return len(self.names)

        def where(self, record):
            return self.names[record]

        def digest(self):
            return self.names[0]

        def read(self, numbers):
            return [{"image": self.names[n].encode()} for n in numbers]

    both = Relabeled([Reader("a", "b"), Reader("c")], np.array([0, -1, 1]))
    assert [both.where(i) for i in range(len(both))] == ["a", "b", "c"]
    assert [fields["image"] for fields in both.read([2, 0, 1])] == [b"c", b"a", b"b"]
    assert both.digest() != Relabeled([Reader("c"), Reader("a", "b")], both.index.identity).digest()

"""Cluster contrast as a run: learns, resumes, on many devices, from a source, served; and what stops it."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from cion_jax.common.typed_config import ConfigError
from cion_jax.data.groups import PlanError
from cion_jax.data.records import DatasetError
from cion_jax.data.target import open_target
from cion_jax.export import export
from cion_jax.tasks.cluster import labels
from cion_jax.tasks.cluster.task import Cluster
from cion_jax.train import train
from cion_jax.training.checkpoint import CheckpointError
from cion_jax.training.metrics import TrainingStopped
from cion_jax.weights import load
from cion_jax.weights.verify_run import verify_run
from tests import clusters, toy
from tests.clusters import IMAGES, PEOPLE, STRANGERS, config
from tests.runs import assert_equal, assert_same_run, final_state, numbers

COUNT = PEOPLE * IMAGES + STRANGERS


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return clusters.write_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def whole(market, tmp_path_factory):
    """(config, workdir) of a finished run."""
    workdir = tmp_path_factory.mktemp("whole")
    train(config(market), workdir)
    return Cluster(config(market)).config, workdir


def epochs(workdir):
    return [row for row in numbers(workdir) if "clusters" in row]


def test_it_finds_the_people_and_watches_them(whole):
    rows = epochs(whole[1])
    assert [row["step"] for row in rows] == [1, 5, 9]
    assert all(row["clusters"] == PEOPLE and row["ari"] > 0.9 for row in rows)
    assert "unchanged" not in rows[0]
    assert rows[1]["unchanged"] > 0.9
    assert {"outliers", "smallest_cluster", "median_cluster", "largest_cluster", "pairwise_f1"} <= set(rows[0])
    steps = [row for row in numbers(whole[1]) if "clusters" not in row]
    assert [row["learning_rate"] for row in steps] == pytest.approx([1e-2] * 8 + [1e-3] * 4)
    assert np.mean([row["loss"] for row in steps[4:8]]) < np.mean([row["loss"] for row in steps[:4]])
    assert verify_run(whole[1])[1] == []


def test_what_is_served_is_the_feature_that_was_clustered(whole, tmp_path, market):
    backbone = load.load(str(whole[1]))
    assert (backbone.name, backbone.features) == ("toy+unit", toy.Toy.features)
    image = [np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8)]
    np.testing.assert_allclose(np.linalg.norm(backbone(image), axis=1), 1, rtol=1e-6)
    export(backbone, "safetensors", tmp_path / "f.safetensors", source="w", network="teacher", licence="")
    np.testing.assert_array_equal(load.load(str(tmp_path / "f.safetensors"))(image), backbone(image))
    again = config(market, init_from=str(whole[1]), optimizer__learning_rate=0.0, train__steps=1)
    train(again, tmp_path / "again")
    assert_equal(load.load(str(tmp_path / "again")).params["backbone"], backbone.params["backbone"], atol=0)


def test_a_killed_run_goes_on_as_if_it_had_not_been(whole, tmp_path):
    """Within the first epoch, where the second ends, within the third."""
    settings, undisturbed = whole
    for steps in (2, 8, 9, 0):
        train(dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=steps)), tmp_path)
    assert numbers(tmp_path) == numbers(undisturbed)
    assert_equal(final_state(settings, tmp_path), final_state(settings, undisturbed), atol=0)
    for number in range(3):
        np.testing.assert_array_equal(labels.read(tmp_path, number), labels.read(undisturbed, number))


@pytest.mark.parametrize("damage", ["missing", "others"])
def test_labels_that_are_gone_are_missed(whole, tmp_path, damage):
    settings, undisturbed = whole
    shutil.copytree(undisturbed, tmp_path / "w")
    for step in (12, 9):
        shutil.rmtree(tmp_path / "w" / "checkpoints" / str(step), ignore_errors=True)
    cut = dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=2))
    train(cut, tmp_path / "cut")
    if damage == "missing":
        shutil.rmtree(tmp_path / "cut" / "labels")
    else:
        labels.write(tmp_path / "cut", 0, np.zeros(COUNT, int))
    with pytest.raises(CheckpointError, match=r"labels of epoch 0, .*epoch_0000.npz, are (missing|not those)"):
        train(settings, tmp_path / "cut")


@pytest.mark.slow
def test_eight_devices_are_one(market, tmp_path, monkeypatch):
    many = config(market, train__steps=5, mesh__data=2, mesh__fsdp=2, mesh__model=2)
    train(many, tmp_path / "many")
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda: devices[:1])
    one = config(market, train__steps=5)
    train(one, tmp_path / "one")
    assert_same_run(tmp_path / "one", tmp_path / "many", Cluster(one).config, rtol=1e-4)


def test_outliers_and_strangers_are_left_out(market):
    task = Cluster(config(market))
    label = np.repeat(np.arange(PEOPLE), IMAGES)
    whole = np.concatenate([np.full(STRANGERS, -1), label])  # names begin with -1
    stream = task._stream(1, whole, "x")
    seen = list(stream.batches(4))
    assert len(seen) == 4  # to the end of the epoch, not of the run
    for batch in seen:
        assert np.array_equal(batch["identity"], whole[batch["record"]])
        groups = batch["identity"].reshape(-1, 2)
        assert np.array_equal(groups[:, 0], groups[:, 1])
        assert len(set(groups[:, 0])) == PEOPLE
        cameras = task.target.camera[batch["record"]].reshape(-1, 2)
        assert np.all(cameras[:, 0] != cameras[:, 1])


def test_a_source_has_half_of_every_batch_and_its_people_are_in_the_memory(market, tmp_path):
    source = clusters.write_market(tmp_path / "source", people=5, strangers=0)
    settings = config(market, data__source=str(source), train__steps=5, data__batch_size=16)
    train(settings, tmp_path / "w")
    task = Cluster(settings)
    assert task.config.memory.size == COUNT // 2 + 5
    state = final_state(task.config, tmp_path / "w")
    found = int(state.trained["stats"]["memory"]["count"])
    assert found == 5 + epochs(tmp_path / "w")[-1]["clusters"]
    centroids = state.trained["stats"]["memory"]["centroids"]
    np.testing.assert_allclose(np.linalg.norm(centroids[:found], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(centroids[found:], 0)
    label = labels.read(tmp_path / "w", 1)
    batch = next(task._stream(1, label, "x").batches(4))
    assert np.all(batch["identity"][:8] < 5)
    assert np.all(batch["identity"][8:] >= 5)
    where = [task._stream(1, label, "x").reader.where(record) for record in batch["record"]]
    assert [str(source) in place for place in where] == [True] * 8 + [False] * 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels__dbscan__eps": 1e-9, "labels__dbscan__min_samples": 50},
            rf"epoch 0: dbscan finds 0 clusters in {COUNT} images, {COUNT} are outliers, so there is nothing to tell "
            r"apart; raise config.labels.dbscan.eps, or lower min_samples, or start from weights",
        ),
        (
            {"labels__dbscan__eps": 1.0, "labels__dbscan__k1": COUNT - 1},
            r"finds 1 clusters in .*; lower config.labels.dbscan.eps, or start from weights",
        ),
        (
            {"memory__size": 5},
            rf"finds {PEOPLE} clusters in {COUNT} images, the memory has room for 5; give config.memory.size={PEOPLE}",
        ),
    ],
)
def test_a_collapse_stops_the_run_and_says_what_to_set(market, tmp_path, changes, message):
    with pytest.raises(TrainingStopped, match=message):
        train(config(market, **changes), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels__method": "dbscn"}, "there is no method of pseudo labels 'dbscn'; did you mean 'dbscan'"),
        ({"data__batch_size": 15}, r"batch_size=15 is no number of two or more groups .* give e.g. 16"),
        ({"data__batch_size": 18, "data__source": "x"}, r"is no even number of two or more groups .* give e.g. 16"),
        ({"labels__dbscan__k2": 9}, "k2=9 of k1=8 nearest images; give a k2 of at most 8"),
        ({"optimizer__decay_epochs": (3, 2)}, "decay_epochs takes rising epochs"),
        ({"memory__temperature": 0.0}, r"config.memory.temperature must be in \(0, 100\]"),
        ({"model__pool": "gem"}, "takes the maps of a ResNet, got the backbone toy; .* config.model.pool=own"),
    ],
)
def test_settings_that_cannot_be_say_what_can(market, changes, message):
    with pytest.raises((ConfigError, PlanError), match=message):
        Cluster(config(market, **changes)).init()


def test_unreadable_images_are_outliers(market, tmp_path):
    folder = tmp_path / "market"
    shutil.copytree(market, folder)
    victim = next((folder / "bounding_box_train").glob("0005*"))
    victim.write_bytes(b"\xff\xd8")
    train(config(folder, train__steps=1), tmp_path / "w")
    reader = Cluster(config(folder)).target.reader
    place = [reader.where(i) for i in range(len(reader))].index(str(victim))
    label = labels.read(tmp_path / "w", 0)
    assert label[place] == -1
    assert epochs(tmp_path / "w")[0]["unreadable"] == 1
    assert label.max() == PEOPLE - 1


def test_a_cluster_of_one_image_is_none():
    features = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 2, 3]]
    features[5] = 0  # cannot be read
    nothing = np.full(6, -1)
    method = labels.Method(lambda seen, settings: np.array([4, 4, 2, 0, 0]), "", "")
    with labels.PSEUDO_LABELS.with_one_more("given", method):
        found = labels.clusters(
            labels.Sightings(features, nothing, nothing, nothing),
            dataclasses.replace(labels.LabelsConfig(), method="given"),
        )
    assert found.tolist() == [0, 0, -1, 1, 1, -1]


def test_images_without_names(market, tmp_path):
    target = open_target(market)
    assert len(target) == COUNT
    assert sorted(set(target.truth)) == [-1, *range(2, 2 + 3 * PEOPLE, 3)]
    assert set(target.camera) == {1, 2, 3, 4}
    for i, path in enumerate(sorted((market / "bounding_box_train").iterdir())[:5]):
        (tmp_path / f"sub{i % 2}").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / f"sub{i % 2}" / f"{i}.jpg")
    plain = open_target(tmp_path)
    assert (len(plain), plain.truth, set(plain.camera)) == (5, None, {-1})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image in"):
        open_target(tmp_path / "empty")
    with pytest.raises(DatasetError, match="is no folder"):
        open_target(tmp_path / "nowhere")


def test_identity_shards_without_their_identities(shards):
    target = open_target(shards)
    assert target.truth is None
    assert set(target.camera) == {0, 1}  # two videos
    assert np.array_equal(target.video, target.camera)


def test_the_checkpoint_knows_the_labels(whole):
    with load.Checkpointer(whole[1], read_only=True) as checkpointer:
        run = checkpointer.run(checkpointer.latest())
    assert run["labels"] == labels.digest(labels.read(whole[1], 2))
    assert json.loads((whole[1] / "config.json").read_text())["memory"]["size"] == COUNT // 2

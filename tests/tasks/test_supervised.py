"""Fine-tuning as a run: from shards and from files, resumed, on many devices, started from weights, exported."""

import dataclasses
import shutil
from functools import partial

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from cion_jax import models, plan
from cion_jax.common.typed_config import ConfigError
from cion_jax.data.groups import PlanError
from cion_jax.data.records import DatasetError
from cion_jax.distributed import sharding
from cion_jax.evaluate import evaluate
from cion_jax.export import export
from cion_jax.models import registry
from cion_jax.models.resnet import BasicBlock, ResNet
from cion_jax.reid import benchmarks
from cion_jax.reid.benchmarks import BenchmarkError
from cion_jax.tasks.supervised import classifier
from cion_jax.tasks.supervised.task import Supervised, collapse_warning
from cion_jax.train import train
from cion_jax.training.checkpoint import CheckpointError
from cion_jax.training.task import Context
from cion_jax.weights import load
from cion_jax.weights.verify_run import verify_run
from tests import fine_tuning, toy
from tests.runs import assert_equal, assert_same_run, final_state, numbers

PEOPLE, IMAGES, config = fine_tuning.PEOPLE, fine_tuning.IMAGES, fine_tuning.config


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A folder as Market-1501 is unpacked: people 2, 5, 8, ..., a distractor, junk, a name that says nothing."""
    return fine_tuning.write_market(tmp_path_factory.mktemp("market"))


def files(market, **changes):
    return config(market, **{"data__batch_size": 8, "mesh__data": 4, "mesh__model": 2} | changes)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """(config, workdir) of a finished run on the toy's shards."""
    workdir = tmp_path_factory.mktemp("whole")
    train(config(shards), workdir)
    return config(shards), workdir


def _falls(rows):
    """Whether the loss of the last third is below that of the first by more than it varies."""
    losses = np.array([row["loss"] for row in rows])
    first, last = losses[: len(losses) // 3], losses[-(len(losses) // 3) :]
    return last.mean() < first.mean() - first.std() - last.std()


def test_it_learns_from_shards(whole):
    rows = numbers(whole[1])
    assert _falls(rows)
    assert rows[0]["loss"] == pytest.approx(rows[0]["identity"] + rows[0]["triplet"])
    # Linear warm-up from a hundredth; a bias's rate tends to twice the other's, from the same start.
    assert rows[0]["learning_rate"] == rows[0]["learning_rate_bias"] == pytest.approx(5e-4)
    assert load.load(str(whole[1])).features == toy.Toy.features


def test_it_learns_from_a_folder_as_it_was_unpacked(market, tmp_path, capsys):
    train(files(market), tmp_path)
    said = capsys.readouterr().err
    assert f"{PEOPLE * IMAGES} images of {PEOPLE} units" in said
    assert "1 images left out, not named like a crop: thumb.jpg" in said
    rows = numbers(tmp_path)
    assert _falls(rows)
    assert load.load(str(tmp_path)).run.config.model.classes == PEOPLE


def test_classes_are_numbered_from_zero_and_a_batch_has_distinct_people(market):
    task = Supervised(files(market))
    for batch in task.stream().batches():
        people = batch["identity"].reshape(-1, 2)
        assert np.array_equal(people[:, 0], people[:, 1])
        assert len(set(people[:, 0])) == 4
        assert set(people[:, 0]) <= set(range(PEOPLE))


def test_a_killed_run_goes_on_as_if_it_had_not_been(whole, tmp_path):
    settings, undisturbed = whole
    for steps in (1, 4, 0):
        loop = dataclasses.replace(settings.train, steps=steps)
        train(dataclasses.replace(settings, train=loop), tmp_path)
    assert numbers(tmp_path) == numbers(undisturbed)
    task = Supervised(settings)
    assert_equal(final_state(task.config, tmp_path), final_state(task.config, undisturbed), atol=0)


def test_eight_devices_are_one(shards, tmp_path, monkeypatch):
    many = config(shards, train__steps=2, mesh__fsdp=2, mesh__model=2)
    train(many, tmp_path / "many")
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda: devices[:1])
    one = config(shards, train__steps=2)
    train(one, tmp_path / "one")
    assert_same_run(tmp_path / "one", tmp_path / "many", Supervised(one).config, rtol=1e-4)


@pytest.mark.parametrize(
    ("identity", "count", "expected"),
    [
        ([0] * 8 + [1] * 2, 4, [0, 2, 4, 6, 8, 9]),
        ([0] * 5, 2, [0, 3]),
        ([1, 0, 1, 0, 1], 1, [0, 1]),  # rising numbers of either
    ],
)
def test_some_of_everyone(identity, count, expected):
    assert classifier.some_of_each(np.array(identity), count).tolist() == expected


def test_means_by_hand():
    """Numbers of mean 0, deviation 1: (+-1, +-1); 0's images are one at (1, 1) and one at (-1, 1), so 0 is (0, 1)."""
    corners = np.array([[7, 3], [3, 3], [0, 0], [7, 1], [3, 1]], np.float32)  # the third cannot be read
    found, right = classifier.means(corners, np.array([0, 0, 0, 1, 2]))
    assert right == 1
    crossed, right = classifier.means(corners, np.array([0, 1, 1, 1, 0]))  # opposite corners: their means are nowhere
    assert (crossed.any(), right) == (False, 0.5)
    assert found == pytest.approx(np.array([[0, 1], [np.sqrt(0.5), -np.sqrt(0.5)], [-np.sqrt(0.5), -np.sqrt(0.5)]]))


def test_a_number_that_is_always_the_same_says_nothing():
    """What rounding makes of it, divided by its own deviation, would outweigh all others."""
    corners = np.array([[7, 3, 0.1], [3, 3, 0.1], [7, 1, 0.1], [3, 1, np.nextafter(np.float32(0.1), 1)]], np.float32)
    found, right = classifier.means(corners, np.arange(4))
    assert right == 1
    expected = np.sqrt(0.5) * np.array([[1, 1, 0], [-1, 1, 0], [1, -1, 0], [-1, -1, 0]])
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_classifier_that_begins_with_means_knows_people(shards, whole, tmp_path, monkeypatch, capsys):
    """From the first step on; killed and resumed, and on one device, it is the same run."""
    settings = partial(config, shards, init_from=str(whole[1]), mesh__fsdp=2, mesh__model=2, train__steps=6)
    means = partial(settings, model__classifier="means")
    train(settings(), tmp_path / "random")
    train(means(), tmp_path / "means")
    assert numbers(tmp_path / "random")[0]["accuracy"] < 0.5 < numbers(tmp_path / "means")[0]["accuracy"]
    train(means(train__steps=1), tmp_path / "killed")
    train(means(), tmp_path / "killed")
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "means")
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda: devices[:1])
    one = means(mesh__fsdp=1, mesh__model=1)
    train(one, tmp_path / "one")
    assert_same_run(tmp_path / "one", tmp_path / "means", Supervised(one).config, rtol=1e-4)
    assert "warning: config.model.classifier=means" not in capsys.readouterr().err
    train(means(init_from="", train__steps=1, mesh__fsdp=1, mesh__model=1), tmp_path / "nothing")
    assert "warning: config.model.classifier=means of a network with random weights" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="MGN has a classifier for each part"):
        settings(model__classifier="means", model__method="mgn", model__served="after")


def test_microbatches_keep_whole_identities(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"whole groups of K = 2 to 16 shares"):
        train(config(shards, train__accumulate=2), tmp_path)
    with pytest.raises(ConfigError, match=r"a microbatch of 2 images has 1 person \(K = 2\)"):
        Supervised(config(shards, train__accumulate=8)).check(
            jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "model"))
        )


def test_a_classifier_of_another_width_is_refused(whole, market):
    settings, workdir = whole
    with pytest.raises(CheckpointError, match=r"model.classes: 13 -> 6"):
        train(files(market), workdir)
    with pytest.raises(ConfigError, match=r"config.model.classes=7, the data has 13 people"):
        Supervised(config(settings.data.path, model__classes=7)).stream()


def test_people_are_too_few(market, tmp_path):
    with pytest.raises(PlanError, match=r"takes 8 distinct identities, the data has 6; choose a batch of at most 12"):
        Supervised(files(market, data__batch_size=16))
    shutil.copytree(market, tmp_path / "one")
    for path in (tmp_path / "one" / "bounding_box_train").glob("*.jpg"):
        if not path.name.startswith("0002"):
            path.unlink()
    with pytest.raises(PlanError, match="the data has 1 identity with 5 images, so nothing to tell it from"):
        Supervised(files(tmp_path / "one"))


def test_folders_without_anybody(tmp_path):
    with pytest.raises(DatasetError, match="is no folder"):
        Supervised(config(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"nobody to train on in .*: got 0 images"):
        Supervised(config(tmp_path))
    (tmp_path / "query").mkdir()
    with pytest.raises(DatasetError, match=r"has test images \(query\) and no folder bounding_box_train"):
        Supervised(config(tmp_path))


def test_unreadable_files_are_counted_and_the_run_goes_on(market, tmp_path):
    folder = tmp_path / "market"
    shutil.copytree(market, folder)
    victim = next((folder / "bounding_box_train").glob("0002*"))
    victim.write_bytes(b"\xff\xd8")
    train(files(folder, data__max_skipped=0.1, train__steps=9), tmp_path / "w")
    assert numbers(tmp_path / "w")[-1]["skipped"] > 0


def test_files_that_come_or_go_are_other_data(market, tmp_path):
    folder = tmp_path / "market"
    shutil.copytree(market, folder)
    before = Supervised(files(folder)).stream().digest
    assert before == Supervised(files(market)).stream().digest
    one = next((folder / "bounding_box_train").glob("0005*"))
    one.write_bytes(one.read_bytes() + b"0")
    assert before != Supervised(files(folder)).stream().digest
    one.unlink()
    assert before != Supervised(files(folder)).stream().digest


def test_msmt17s_lists(market, tmp_path):
    place = tmp_path / "mask_train_v2"
    shutil.copytree(market / "bounding_box_train", place / "0000")
    names = sorted(path.name for path in place.glob("0000/0*"))
    lines = [f"0000/{name} {int(name[:4]) // 3}" for name in names]
    (tmp_path / "list_train.txt").write_text("\n".join(lines[:20]) + "\n")
    (tmp_path / "list_val.txt").write_text("\n".join(lines[20:]) + "\n")
    both, one = (Supervised(files(tmp_path, data__protocol=name)).stream() for name in ("trainval", "train"))
    assert (len(both.reader), len(one.reader)) == (len(names), 20)
    (tmp_path / "list_val.txt").write_text("0000/nobody.jpg 3\n")
    with pytest.raises(DatasetError, match=r"1 of 21 files of list_train.txt and list_val.txt are not in .*nobody.jpg"):
        Supervised(files(tmp_path))


@pytest.mark.parametrize("served", ["before", "after"])
@pytest.mark.parametrize("form", ["safetensors", "onnx", "stablehlo"])
def test_a_fine_tuned_run_is_exported(shards, tmp_path, served, form):
    train(config(shards, model__served=served, train__steps=1), tmp_path / "w")
    backbone = load.load(str(tmp_path / "w"))
    assert backbone.name == ("toy" if served == "before" else "toy+bnneck")
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    export(backbone, form, tmp_path / f"f.{form}", source="w", network="teacher", licence="")
    if form == "safetensors":
        image = [np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8)]
        np.testing.assert_array_equal(load.load(str(tmp_path / "f.safetensors"))(image), backbone(image))


def test_it_starts_from_a_pretrained_run(shards, tmp_path, capsys):
    pretraining = toy.config(shards, train__steps=1)
    train(pretraining, tmp_path / "pre")
    train(config(shards, init_from=str(tmp_path / "pre"), optimizer__learning_rate=0.0, train__steps=1), tmp_path / "w")
    said = capsys.readouterr().err
    assert "the backbone without its distillation head, of" in said
    assert (
        "trained on images less mean=(0.485, 0.456, 0.406) by std=(0.229, 0.224, 0.225), this run takes mean=(0.5,"
        in said
    )
    teacher, tuned = load.load(str(tmp_path / "pre")), load.load(str(tmp_path / "w"))
    assert_equal(tuned.params, teacher.params, atol=0)
    again = config(shards, init_from=str(tmp_path / "w"), optimizer__learning_rate=0.0, train__steps=1)
    train(again, tmp_path / "again")
    assert "trained on images less" not in capsys.readouterr().err
    assert_equal(load.load(str(tmp_path / "again")).params, teacher.params, atol=0)
    export(tuned, "safetensors", tmp_path / "f.safetensors", source="w", network="teacher", licence="")
    settings = {"init_from": str(tmp_path / "f.safetensors"), "optimizer__learning_rate": 0.0, "train__steps": 1}
    for name, image in (("other", {"image__mean": (0.4, 0.5, 0.5)}), ("same", {})):
        train(config(shards, **settings, **image), tmp_path / name)
        assert ("this run takes mean=(0.4, 0.5, 0.5)" in capsys.readouterr().err) == (name == "other")
    found, said = safetensors.numpy.load_file(tmp_path / "f.safetensors"), {"model": "toy", "input_size": "[32, 16]"}
    safetensors.numpy.save_file(found, tmp_path / "f.safetensors", said)  # it does not say of what mean and std
    (tmp_path / "f.safetensors.sha256").unlink(missing_ok=True)
    train(config(shards, **settings), tmp_path / "unknown")
    assert "trained on images less" not in capsys.readouterr().err


@pytest.mark.slow
def test_mgn_trains_its_heads_first_and_starts_from_a_resnet(market, tmp_path, monkeypatch):
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda: devices[:1])
    with registry.BACKBONES.with_one_more("small", partial(ResNet, BasicBlock, (1, 1, 2, 1))):
        graphdef, params, stats = models.split(models.create("small", rngs=nnx.Rngs(7)))
        backbone = load.Backbone("small", graphdef, params, stats)
        export(backbone, "safetensors", tmp_path / "r.safetensors", source="", network="teacher", licence="")
        mgn = {
            "model__name": "small",
            "model__method": "mgn",
            "model__served": "after",
            "loss__smoothing": 0.1,
            "optimizer__kind": "adam",
            "optimizer__bias_rate": 1.0,
            "optimizer__learning_rate": 1e-3,
            "optimizer__frozen_epochs": 1.0,
            "image__height": 96,
            "image__width": 32,
            "init_from": str(tmp_path / "r.safetensors"),
            "mesh__data": 1,
            "mesh__model": 1,
        }
        settings = files(market, **mgn, train__steps=5)
        task = Supervised(settings)
        assert [task.static(task.stream(), step) for step in (0, 3, 4)] == [True, True, False]
        train(files(market, **mgn, train__steps=4), tmp_path / "w")
        held = final_state(task.config, tmp_path / "w")
        for ours, plain in ((held.trained["params"], params), (held.trained["stats"], stats)):
            assert_equal(task.backbone({"params": ours})["params"], plain, atol=0)
            assert_equal(ours["b3"]["1"], plain["layer4"], atol=0)
        train(settings, tmp_path / "w")
        moved = final_state(task.config, tmp_path / "w").trained["params"]
        assert np.any(
            moved["b3"]["1"]["0"]["conv1"]["kernel"] != held.trained["params"]["b3"]["1"]["0"]["conv1"]["kernel"]
        )
        served = load.load(str(tmp_path / "w"))
        assert (served.name, served.features, served.size) == ("small+mgn", 2048, (96, 32))
        export(served, "onnx", tmp_path / "f.onnx", source="", network="teacher", licence="")
        export(served, "safetensors", tmp_path / "f.safetensors", source="", network="teacher", licence="")


def test_mgns_triplets_are_of_raw_features(market):
    mgn = {"model__name": "resnet50_ibn", "model__method": "mgn", "model__served": "after"}
    with pytest.raises(ConfigError, match=r"config.loss.normalized is of bnneck; MGN's triplets are of raw features"):
        files(market, **mgn, loss__normalized=True)


def test_mgns_backbone_is_a_resnet_and_its_rates_follow_the_steps(market):
    with registry.BACKBONES.with_one_more("small", partial(ResNet, BasicBlock, (1, 1, 2, 1))):
        settings = {"model__name": "small", "model__method": "mgn", "model__served": "after"}
        task = Supervised(files(market, **settings, optimizer__frozen_epochs=1.0, optimizer__flat_epochs=4.0))
        network = jax.eval_shape(task.init)[0]
        plain = models.split(models.abstract("small"))[1:]
        served = task.serve(network)
        assert served.name == "small+mgn"
        assert jax.tree.structure((served.params, served.stats)) == jax.tree.structure(
            models.split(models.abstract("small+mgn"))[1:]
        )
    for tree, kind in zip(plain, ("params", "stats"), strict=True):
        shapes = jax.tree.map(lambda leaf: leaf.shape, tree)
        assert jax.tree.map(lambda leaf: leaf.shape, task.backbone(network)[kind]) == shapes
    rng = np.random.default_rng(0)
    other = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), {"params": plain[0], "stats": plain[1]})
    assert_equal(task.backbone(task.with_backbone(network, other)), other, atol=0)
    stream = task.stream()
    assert stream.steps_per_epoch == (3,) * 8  # 30 images in batches of 8
    assert [task.static(stream, step) for step in (0, 3, 4)] == [True, True, False]
    trains = task.schedules(stream.steps_per_epoch)["backbone_trains"]
    assert [bool(trains(step)) for step in (0, 3, 4)] == [False, False, True]


def test_a_collapse_is_said():
    assert "features that are all alike" in collapse_warning(0.6931, 1e-3, "bnneck")
    assert collapse_warning(0.5, 1e-3, "bnneck") is None
    assert collapse_warning(0.6931, 30.0, "bnneck") is None  # a loss on its way down passes through log 2


def test_a_collapse_is_measured(shards):
    """Without parameters all images have one feature, with large ones they have not."""
    task = Supervised(config(shards))
    network, _ = task.init()
    images = np.random.default_rng(0).normal(size=(4, 32, 16, 3)).astype(np.float32), np.array([0, 0, 1, 1])
    context = Context(sharding.make_mesh(task.config.mesh, jax.devices()[:1]), False)

    def said(scale):
        params = jax.tree.map(lambda leaf: scale * leaf, network["params"])
        _, (_, measured) = task.loss(params, network["stats"], images, None, jax.random.key(0), context)
        return task.watch(jax.tree.map(float, measured))

    assert "features that are all alike" in said(0)
    assert said(9) is None


def test_scores_while_it_trains_and_the_best_is_kept(market, tmp_path):
    """On a benchmark of the people that it trains on: scores rise from what they were."""
    folder = tmp_path / "market"
    shutil.copytree(market, folder)
    names = sorted(path.name for path in (folder / "bounding_box_train").glob("0*_c*"))
    for part, kept in (("query", names[::5]), ("bounding_box_test", names)):
        (folder / part).mkdir()
        for name in kept:
            shutil.copy(folder / "bounding_box_train" / name, folder / part / name)
    settings = files(folder, evaluate__every=2, train__epochs=5)
    train(settings, tmp_path / "w")
    rows = [row for row in numbers(tmp_path / "w") if "mAP" in row]
    per_epoch = Supervised(settings).stream().steps_per_epoch
    assert [row["step"] for row in rows] == [sum(per_epoch[:2]), sum(per_epoch[:4])]
    best = max(rows, key=lambda row: row["mAP"])
    kept = load.load(str(tmp_path / "w" / "best"))
    assert kept.step == best["step"]
    scores = evaluate(kept, benchmarks.load("market1501", folder))
    assert (scores["mAP"], scores["rank1"]) == (best["mAP"], best["rank1"])
    assert verify_run(tmp_path / "w")[1] == []
    with pytest.raises(BenchmarkError):
        train(files(market, evaluate__every=2), tmp_path / "early")
    assert not (tmp_path / "early").exists()


def test_a_step_can_be_planned():
    task = Supervised(config("unused", model__classes=751))
    memory, compiled = plan._compile(task, sharding.make_mesh(task.config.mesh))
    assert memory > 0
    assert compiled.cost_analysis()["flops"] > 0

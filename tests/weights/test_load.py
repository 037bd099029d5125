"""Weights of every source: which network, which names, what fails; and pre-training that starts from them."""

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.distributed import sharding
from cion_jax.tasks.distill.task import Distill
from cion_jax.train import train
from cion_jax.training import checkpoint
from cion_jax.training.step import make_trainer
from cion_jax.weights import load, torch_names
from cion_jax.weights.start import _source, from_weights
from cion_jax.weights.torch_names import WeightsError
from tests import torch_writer, toy
from tests.test_train import final_state, rows

ONE = np.ones(1, np.float32)


def random_network(seed, **changes):
    """(backbone, head) of the toy network under PyTorch's names, of any numbers."""
    config = dataclasses.replace(toy.config("shards", **changes), seed=seed)
    _, params, stats = models.split(Distill(config).network())
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), stats)
    return torch_names.to_torch(params["backbone"], stats["backbone"]), torch_names.to_torch(params["head"], {})


def like():
    """(params, stats) of the toy, of shapes."""
    return models.split(models.abstract("toy"))[1:]


def wrapped(network, prefix=""):
    """The names of a released checkpoint."""
    backbone, head = network
    return {f"{prefix}backbone.{n}": a for n, a in backbone.items()} | {f"{prefix}head.{n}": a for n, a in head.items()}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """(file, teacher, student): a file of the released layout."""
    path = tmp_path_factory.mktemp("released") / "checkpoint.pth"
    teacher, student = random_network(1), random_network(2)
    saved = {
        "student": torch_writer.state_dict(wrapped(student, "module.")),
        "teacher": torch_writer.state_dict(wrapped(teacher)),
        "optimizer": {"state": {0: {"exp_avg": torch_writer.tensor(np.zeros(3, np.float32))}}},
        "epoch": 99,
        "args": torch_writer.namespace(arch="toy"),
        "loss": torch_writer.state_dict({"center": np.zeros((1, 32), np.float32)}),
    }
    torch_writer.save(path, saved)
    return path, teacher, student


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    toy.write_shards(folder)
    return folder


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_teacher_and_student_of_a_released_checkpoint(released):
    path, teacher, student = released
    for network, (backbone, head) in {"teacher": teacher, "student": student}.items():
        named = load.read(path, network, like())
        assert_same(named.backbone, backbone)
        assert_same(named.head, head)
        found = load.load(f"file:toy@48x16={path}", network)
        assert_same(torch_names.to_torch(found.params, found.stats), backbone)
        assert (found.name, found.size, found.run) == ("toy", (48, 16), None)


def plain(path, named):
    torch_writer.save(path, torch_writer.state_dict(named))


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        ("pth", lambda path, named: plain(path, named)),
        ("pth", lambda path, named: plain(path, {f"module.{n}": a for n, a in named.items()})),
        ("pt", lambda path, named: torch_writer.save_legacy(path, {"state_dict": torch_writer.state_dict(named)})),
        ("tar", lambda path, named: torch_writer.save(path, {"model": torch_writer.state_dict(named), "epoch": 3})),
        ("safetensors", lambda path, named: safetensors.numpy.save_file(named, path)),
        ("safetensors", lambda path, named: safetensors.numpy.save_file(wrapped((named, random_network(1)[1])), path)),
    ],
    ids=["plain", "module", "state_dict", "model", "safetensors", "safetensors_with_head"],
)
def test_other_layouts(tmp_path, suffix, save):
    backbone, _ = random_network(3)
    path = tmp_path / f"weights.{suffix}"
    save(path, backbone)
    found = load.load(f"file:toy={path}")
    assert_same(torch_names.to_torch(found.params, found.stats), backbone)
    assert found.size == (256, 128)


def test_every_misfit_is_listed_unless_excused(tmp_path):
    backbone, _ = random_network(3)
    path = tmp_path / "weights.safetensors"
    del backbone["conv3.bias"]
    safetensors.numpy.save_file(backbone | {"neck.weight": np.zeros((5, 16), np.float32)}, path)
    with pytest.raises(WeightsError, match=r"weights\.safetensors") as error:
        load.load(f"file:toy={path}")
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "1 missing: conv3.bias",
        "1 unexpected: neck.weight",
    ]
    found = load.load(f"file:toy={path}", ignore=[r"neck\..*", "conv3.bias"])
    untrained = models.split(models.create("toy", rngs=nnx.Rngs(0)))[1]
    np.testing.assert_array_equal(found.params["conv3"]["bias"], untrained["conv3"]["bias"])
    np.testing.assert_array_equal(found.params["conv2"]["bias"], backbone["conv2.bias"])


@pytest.mark.parametrize(
    ("saved", "network", "message"),
    [
        ([1, 2], "teacher", "holds a list, expected a state dict"),
        ({}, "teacher", "it is empty"),
        ({"epoch": 3}, "teacher", "'epoch' is no tensor"),
        ({"student": torch_writer.state_dict({"conv1.weight": ONE})}, "teacher", "has no teacher, but a student"),
        ({"model": torch_writer.state_dict({"conv1.weight": ONE})}, "student", "holds one network"),
        (
            {"net": torch_writer.state_dict({"\x1b[31mx": ONE})},
            "teacher",
            r"none of its 1 names .* \\x1b\[31mx; the model",
        ),
    ],
)
def test_what_is_no_network(tmp_path, saved, network, message):
    torch_writer.save(tmp_path / "weights.pth", saved)
    with pytest.raises(WeightsError, match=message):
        load.read(tmp_path / "weights.pth", network, like())


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("file:toy", ConfigError, "file:NAME@HEIGHTxWIDTH=FILE, got 'file:toy'"),
        ("file:toy=x.pth", WeightsError, "x.pth does not exist"),
        ("nowhere", WeightsError, "nowhere does not exist; expected a training workdir"),
    ],
)
def test_specs_that_lead_nowhere(spec, error, message):
    with pytest.raises(error, match=message):
        load.load(spec)


def test_files_that_do_not_say_which_backbone_they_are_of(tmp_path, released):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(random_network(3)[0], path)
    with pytest.raises(ConfigError, match="give file:NAME="):
        load.load(str(path))
    with pytest.raises(ConfigError, match="did you mean 'toy'"):
        load.load(f"file:toi={released[0]}")
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="is no safetensors file"):
        load.read(path, like=like())


def trainer_of(config):
    return make_trainer(Distill(config), sharding.make_mesh(config.mesh), (10,) * config.train.epochs)


def start(config):
    """The state before the first step of a run with `init_from`."""
    trainer = trainer_of(config)
    return from_weights(Distill(config), trainer.init(), trainer.shardings), trainer.shardings


def named_of(network):
    return (
        torch_names.to_torch(network["params"]["backbone"], network["stats"]["backbone"]),
        torch_names.to_torch(network["params"]["head"], {}),
    )


def test_student_and_teacher_start_from_the_teacher_of_the_file(released, capsys):
    state, shardings = start(toy.config("shards", init_from=str(released[0])))
    for network in (state.trained, state.kept["teacher"]):
        for found, expected in zip(named_of(network), released[1], strict=True):
            assert_same(found, expected)
    assert "the backbone and the head" in capsys.readouterr().err
    equal = jax.tree.map(lambda leaf, s: leaf.sharding.is_equivalent_to(s, leaf.ndim), state, shardings)
    assert all(jax.tree.leaves(equal))
    places = [
        {leaf.addressable_shards[0].data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(network)}
        for network in (state.trained, state.kept["teacher"])
    ]
    assert not places[0] & places[1]  # the step donates both


def test_a_head_of_another_shape_stays_random(released, capsys):
    config = toy.config("shards", init_from=str(released[0]), model__prototypes=64)
    state, _ = start(config)
    backbone, head = named_of(state.trained)
    assert_same(backbone, released[1][0])
    assert_same(head, named_of(trainer_of(config).init().trained)[1])
    said = capsys.readouterr().err
    assert "without its head, which is another (2 of a wrong shape: last_layer.weight_" in said


def test_a_backbone_that_does_not_fit_stops(tmp_path):
    backbone, _ = random_network(3)
    del backbone["conv3.bias"]
    plain(tmp_path / "weights.pth", backbone)
    with pytest.raises(WeightsError, match=r"missing: conv3\.bias"):
        start(toy.config("shards", init_from=str(tmp_path / "weights.pth")))
    state, _ = start(toy.config("shards", init_from=str(tmp_path / "weights.pth"), init_ignore=(r"conv3\.bias",)))
    np.testing.assert_array_equal(state.kept["teacher"]["params"]["backbone"]["conv2"]["bias"], backbone["conv2.bias"])


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    """(config, workdir) of two steps from random weights."""
    config = toy.config(shards, train__steps=2, train__checkpoint_every=1)
    workdir = tmp_path_factory.mktemp("run")
    train(config, workdir)
    return config, workdir


def test_a_run_starts_from_a_file_and_resumes_without_it(released, shards, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(released[0].read_bytes())
    settings = {"init_from": str(file), "seed": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(toy.config(shards, train__steps=2, **settings), whole)
    train(toy.config(shards, train__steps=1, **settings), parts)
    file.unlink()
    train(toy.config(shards, train__steps=2, **settings), parts)
    of_the_file = [a for part in released[1] for n, a in part.items() if "running" not in n and "tracked" not in n]
    norm = np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in of_the_file))
    assert rows(whole)[0]["parameter_norm"] == pytest.approx(norm, rel=1e-5)
    assert [row["loss"] for row in rows(parts)] == [row["loss"] for row in rows(whole)]


def test_a_run_starts_from_a_run(run, shards, tmp_path):
    config, workdir = run
    train(toy.config(shards, train__steps=1, init_from=str(workdir)), tmp_path)
    last = final_state(config, workdir)
    state, _ = start(toy.config(shards, init_from=str(workdir)))
    for network in (state.trained, state.kept["teacher"]):
        for found, expected in zip(named_of(network), named_of(last.kept["teacher"]), strict=True):
            assert_same(found, expected)
    assert len(rows(tmp_path)) == 1


def test_teacher_and_student_of_a_run(run):
    config, workdir = run
    last = final_state(config, workdir)
    for network, of_the_run in (("teacher", last.kept["teacher"]), ("student", last.trained)):
        found = load.load(str(workdir), network)
        assert_same(torch_names.to_torch(found.params, found.stats), named_of(of_the_run)[0])
        assert (found.name, found.size, found.run.step) == ("toy", (32, 16), 2)


def test_one_of_several_checkpoints(run):
    _, workdir = run
    first, last = (load.load(str(path)) for path in (workdir / checkpoint.FOLDER / "1", workdir))
    assert (first.step, last.step) == (1, 2)
    assert not np.array_equal(first.params["conv1"]["kernel"], last.params["conv1"]["kernel"])


def test_a_checkpoint_from_before_a_setting_existed_is_resumed(run):
    config, workdir = run
    with checkpoint.Checkpointer(workdir, read_only=True) as checkpointer:
        saved = checkpointer.run(2)
    index = saved["position"]["index"]
    del saved["config"]["init_from"], saved["config"]["model"]["hidden"]
    with pytest.raises(checkpoint.CheckpointError, match=r"model\.hidden: 2048 -> 256\)"):
        checkpoint.check_resumable(config, saved, index)
    with pytest.raises(checkpoint.CheckpointError, match=r"init_from:  -> other"):
        checkpoint.check_resumable(dataclasses.replace(config, init_from="other"), saved, index)


def test_features_of_a_released_checkpoint(released):
    image = np.random.default_rng(0).integers(0, 256, (32, 16, 3)).astype(np.uint8)
    backbone = load.load(f"file:toy@32x16={released[0]}")
    module = models.create("toy", rngs=nnx.Rngs(0))
    graphdef, *trees = models.split(module)
    expected = models.merge(graphdef, *torch_names.from_torch(released[1][0], *trees))
    x = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(backbone([image]), expected(x[None].astype(np.float32)), rtol=0, atol=1e-5)
    assert backbone.step is None


def test_a_run_of_another_backbone_is_named(run):
    other = {"params": {"conv9": {"bias": np.zeros(3)}}, "stats": {}}
    with pytest.raises(
        WeightsError, match=r"do not fit the model(.|\n)*it is a run of toy: set config\.model\.name to that"
    ):
        _source(str(run[1]), "resnet18", other, ())
    with pytest.raises(WeightsError, match="do not fit the model") as error:
        _source(str(run[1]), "toy", other, ())  # of another size, say
    assert "set config.model.name" not in str(error.value)

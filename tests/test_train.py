"""Whole runs: resume, sharding, curriculum, baselines, bad input, golden numbers."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cion_jax.common import checksums
from cion_jax.common.typed_config import ConfigError
from cion_jax.data.groups import Timeline, Units
from cion_jax.data.records import DatasetError, Index
from cion_jax.distributed import sharding
from cion_jax.tasks.distill.task import collapse_warning
from cion_jax.train import train
from cion_jax.training.checkpoint import CheckpointError
from cion_jax.training.metrics import Metrics, TrainingStopped
from tests import toy
from tests.runs import assert_equal, final_state, numbers, rows

# Loss, gradient norm and teacher entropy of the toy run's first three steps, from a run on the CPU. If the method was
# changed on purpose, run `pytest tests/test_train.py -k golden` and copy the numbers that its message shows.
GOLDEN = (
    (2.628126621246338, 974.7965698242188, 1.2286531925201416),
    (2.661531686782837, 664.8180541992188, 1.5232110023498535),
    (2.8553524017333984, 370.4360046386719, 1.6964055299758911),
)


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """(config, workdir) of an uninterrupted run through all three epochs."""
    config, workdir = toy.config(shards), tmp_path_factory.mktemp("whole")
    train(config, workdir)
    return config, workdir


def test_every_step_is_logged(whole):
    config, workdir = whole
    log = rows(workdir)
    timeline = Timeline(Units.of(Index.load(config.data.path), "identity"), 3, 8, config.curriculum)
    assert [row["step"] for row in log] == list(range(1, timeline.total_steps + 1))
    names = "step loss teacher_entropy teacher_dimensions student_entropy gradient_norm parameter_norm update_norm"
    names += " learning_rate weight_decay momentum images_per_second data_wait skipped"
    assert set(names.split()) == set(log[0])
    assert list((workdir / "tensorboard").iterdir())
    assert checksums.read(workdir / checksums.SUMS).keys() == {"config.json", "metrics.jsonl"}
    assert checksums.damage(workdir / checksums.SUMS) == []


def test_golden_three_steps(whole):
    found = [tuple(row[n] for n in ("loss", "gradient_norm", "teacher_entropy")) for row in rows(whole[1])[:3]]
    np.testing.assert_allclose(found, GOLDEN, rtol=1e-4, err_msg=f"GOLDEN = {found}")


@pytest.mark.parametrize("stops", [(1,), (3, 4), (7,)])
def test_resumed_equals_uninterrupted_bit_for_bit(whole, tmp_path, stops):
    """Interrupted in the first epoch, around the change from K = 2 to 4 (after step 3), and later."""
    config, workdir = whole
    for stop in stops:
        train(toy.config(config.data.path, train__steps=stop), tmp_path)
    train(config, tmp_path)
    assert_equal(final_state(config, tmp_path), final_state(config, workdir), atol=0)
    assert numbers(tmp_path) == numbers(workdir)


@pytest.mark.parametrize(
    ("mesh", "centering"),
    [
        pytest.param((8, 1, 1), "mean", marks=pytest.mark.slow),  # the others split data, too
        ((2, 2, 2), "mean"),
        ((1, 4, 2), "sinkhorn"),
    ],
)
def test_eight_devices_equal_one(shards, tmp_path, mesh, centering, monkeypatch):
    one, many = tmp_path / "one", tmp_path / "many"
    names = dict(zip(("mesh__data", "mesh__fsdp", "mesh__model"), mesh, strict=True))
    # Four images for each of eight devices; an epoch is one step.
    changes = {"data__batch_size": 32, "data__curriculum": ((0, 2),), "train__epochs": 5, "loss__centering": centering}
    train(toy.config(shards, **changes, **names), many)
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda: devices[:1])
    train(toy.config(shards, **changes, mesh__model=1), one)
    for a, b in zip(numbers(one), numbers(many), strict=True):
        np.testing.assert_allclose([*b.values()], [*a.values()], rtol=1e-5)
    monkeypatch.undo()
    config = toy.config(shards, **changes)
    assert_equal(final_state(config, one), final_state(config, many), atol=1e-5)


def test_identity_groups_follow_the_curriculum(whole):
    config, _ = whole
    timeline = Timeline(Units.of(Index.load(config.data.path), "identity"), 3, 8, config.curriculum)
    ks = [timeline.at(step).k for step in range(timeline.total_steps)]
    first, rest = timeline.steps_per_epoch[0], sum(timeline.steps_per_epoch[1:])
    assert ks == [2] * first + [4] * rest
    assert timeline.steps_per_epoch[0] != timeline.steps_per_epoch[1]


def test_schedules_end_with_epochs_of_a_given_length(shards, tmp_path):
    """Eight steps, of which five are a pass; the rate is the cosine at 0/8 to 7/8, interrupted or not."""
    changes = {"data__steps_per_epoch": 8, "train__epochs": 1, "optimizer__warmup_epochs": 0.0}
    config = toy.config(shards, **changes)
    train(config, tmp_path / "whole")
    peak, end = config.optimizer.learning_rate * config.data.batch_size / 256, config.optimizer.final_learning_rate
    cosine = (1 + np.cos(np.pi * np.arange(8) / 8)) / 2
    rates = [row["learning_rate"] for row in rows(tmp_path / "whole")]
    np.testing.assert_allclose(rates, end + (peak - end) * cosine, rtol=1e-5)
    train(toy.config(shards, **changes, train__steps=6), tmp_path / "parts")
    train(config, tmp_path / "parts")
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


@pytest.mark.parametrize("identity", ["tracklet", "instance"])
def test_the_baselines_are_settings_of_the_same_trainer(shards, tmp_path, identity):
    train(toy.config(shards, identity=identity, train__steps=3), tmp_path)
    losses = [row["loss"] for row in rows(tmp_path)]
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_without_local_views(shards, tmp_path):
    train(toy.config(shards, views__local_views=0, train__steps=1), tmp_path)
    assert np.isfinite(rows(tmp_path)[0]["loss"])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(shards, tmp_path):
    broken = toy.config(shards, optimizer__learning_rate=1e38, train__checkpoint_every=1)
    with pytest.raises(TrainingStopped, match=r"step \d+: loss .*lower optimizer.learning_rate"):
        train(broken, tmp_path)
    state = final_state(broken, tmp_path)
    assert 0 < state.step < rows(tmp_path)[-1]["step"]


def test_a_step_that_is_done_when_it_is_reported_ends_there(tmp_path, monkeypatch):
    """16 images in 10 s each, the last row too, which is written at once."""
    clock = iter([0.0, 10.0, 20.0, 20.5])
    monkeypatch.setattr("cion_jax.training.metrics.time", SimpleNamespace(monotonic=lambda: next(clock)))
    metrics = Metrics(tmp_path, toy.task("anywhere", data__batch_size=16, train__log_every=1), 0, 2)
    names = "loss", "gradient_norm", "teacher_entropy", "teacher_dimensions", "skipped"
    for step in (1, 2):
        metrics.add(step, dict.fromkeys(names, jax.numpy.ones(())))
    metrics.close()
    assert [row["images_per_second"] for row in rows(tmp_path)] == [1.6, 1.6]


def test_collapse_is_warned_of():
    assert "one prototype" in collapse_warning(0.01, 65536)
    assert "uniform" in collapse_warning(11.0899, 65536)
    assert collapse_warning(5.0, 65536) is None


@pytest.mark.parametrize(("contrast", "warned"), [(0.5, True), (1.0, False)])
def test_prototypes_that_nothing_learns_from_do_not_collapse(contrast, warned):
    task = toy.task("anywhere", loss__contrast=contrast)
    assert bool(task.watch({"teacher_entropy": 0.0})) is warned
    assert ("teacher_entropy" in task.shown) is warned


def test_a_checkpoint_of_another_config_is_refused(whole):
    config, workdir = whole
    with pytest.raises(CheckpointError, match=r"model.name: toy -> resnet18\); give the same"):
        train(toy.config(config.data.path, model__name="resnet18"), workdir)


def test_other_data_is_refused(whole, tmp_path):
    _, workdir = whole
    toy.write_shards(tmp_path, images_of=lambda person: 3)
    with pytest.raises(CheckpointError, match="the data changed"):
        train(toy.config(tmp_path), workdir)


def test_other_data_is_accepted_where_it_is_said_so(shards, tmp_path):
    train(toy.config(shards, train__steps=2), tmp_path / "w")
    toy.write_shards(tmp_path / "shards", images_of=lambda person: 4)
    train(toy.config(tmp_path / "shards", train__steps=3, data__accept_changed=True), tmp_path / "w")
    assert [row["step"] for row in rows(tmp_path / "w")] == [1, 2, 3]


def test_a_transfer_that_nobody_asked_for_raises(shards, tmp_path, monkeypatch):
    put = sharding.put_batch
    monkeypatch.setattr(sharding, "put_batch", lambda batch, *rest: put(batch, *rest) | {"size": batch["size"]})
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        train(toy.config(shards, train__steps=1), tmp_path)


def test_a_trace_of_exactly_the_steps_asked_for(shards, tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # only here: it takes seconds

    train(toy.config(shards, train__steps=4, profile__steps=(2, 3)), tmp_path)
    (path,) = (tmp_path / "profile").rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())  # ProfileData of JAX 0.10 aborts under Python 3.13
    steps = []
    for plane in space.planes:
        events = (event for line in plane.lines for event in line.events)
        trained = [event for event in events if plane.event_metadata[event.metadata_id].name == "train"]
        named = [
            (plane.stat_metadata[stat.metadata_id].name, stat.int64_value) for event in trained for stat in event.stats
        ]
        steps += [value for name, value in named if name == "step_num"]
    assert steps == [2, 3]


@pytest.mark.parametrize("steps", [(3, 2), (0, 2), (1, 2, 3), (4,)])
def test_a_trace_of_no_steps_is_refused(steps):
    with pytest.raises(ConfigError, match=r"profile.steps takes a first and a last step, e.g. 10,20, got"):
        toy.config("data", profile__steps=steps)


def test_a_checkpoint_of_another_network_is_not_loaded(whole):
    config, workdir = whole
    other = toy.config(config.data.path, model__prototypes=64)
    with pytest.raises(CheckpointError, match=r"2 different .*weight_g: found .*32.* expected .*64"):
        final_state(other, workdir)


def test_missing_data_says_what_to_give(tmp_path):
    with pytest.raises(DatasetError, match="data_prep --output"):
        train(toy.config(tmp_path / "nowhere"), tmp_path / "w")
    with pytest.raises(ConfigError, match=r"config.data.path is empty"):
        toy.config("")

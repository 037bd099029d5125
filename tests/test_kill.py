"""Runs that are killed, asked to leave, or run out of room: all through the real command."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from cion_jax.distributed.preemption import LEFT
from cion_jax.train import train
from cion_jax.training.checkpoint import Checkpointer, CheckpointError
from tests import toy
from tests.runs import SHORT, Process, assert_equal, final_state, finish, nothing_left_running, numbers, rows

__all__ = ["nothing_left_running"]


def _config(shards, **changes):
    return toy.config(shards, data__curriculum=((0, 2),), **changes)


def _kill_at_random(process, rng):
    """Mostly among the steps, where every second moment is in a save; now and then while it starts or restores."""
    if rng.random() < 0.8:
        process.until(r"step \d+/", count=rng.integers(1, 7))
        time.sleep(rng.uniform(0, 0.5))
    else:
        time.sleep(rng.uniform(0, 6))
    process.kill()
    return process.end()


@pytest.mark.parametrize(
    ("kills", "epochs"), [pytest.param(2, 6, id="2"), pytest.param(30, 60, id="30", marks=pytest.mark.slow)]
)
def test_killed_at_random_moments_ends_bit_equal(shards, tmp_path, kills, epochs):
    flags = (*SHORT, f"--config.train.epochs={epochs}")
    undisturbed = Process(tmp_path / "undisturbed", shards, *flags)
    rng, killed, in_save = np.random.default_rng(kills), 0, 0
    while killed < kills:
        status = _kill_at_random(Process(tmp_path / "killed", shards, *flags), rng)
        assert status == -signal.SIGKILL, f"only {killed} kills: the run is too short"
        killed += 1
        in_save += any((tmp_path / "killed" / "checkpoints").glob("*tmp*"))
    finish(undisturbed, Process(tmp_path / "killed", shards, *flags))
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "undisturbed")
    config = _config(shards, train__epochs=epochs)
    assert_equal(final_state(config, tmp_path / "killed"), final_state(config, tmp_path / "undisturbed"), atol=0)
    print(f"{in_save} of {kills} kills left a half-written checkpoint")  # pytest -s shows it
    assert in_save or kills < 30


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_leave_saves_the_last_finished_step(shards, tmp_path, number):
    flags = (
        "--config.data.curriculum=((0,2),)",
        "--config.train.epochs=2000",
        "--config.train.checkpoint_every=100000",
    )
    process = Process(tmp_path / "w", shards, *flags)
    assert process.until(r"step 5/"), process.said()
    asked = time.monotonic()
    process.kill(number)
    assert process.end() == LEFT == 75, process.said()
    assert time.monotonic() - asked < 30
    assert f"{number.name}: saving" in process.said()
    config = _config(shards, train__epochs=2000)
    step = int(final_state(config, tmp_path / "w").step)
    assert rows(tmp_path / "w")[-1]["step"] == step >= 5
    finish(Process(tmp_path / "w", shards, *flags, f"--config.train.steps={step + 2}"))
    finish(Process(tmp_path / "undisturbed", shards, *flags, f"--config.train.steps={step + 2}"))
    assert_equal(final_state(config, tmp_path / "w"), final_state(config, tmp_path / "undisturbed"), atol=0)


@pytest.mark.slow
def test_asked_to_leave_while_it_starts_leaves_when_the_grace_is_over(shards, tmp_path):
    process = Process(tmp_path / "w", shards, "--config.train.grace=0.5", JAX_ENABLE_COMPILATION_CACHE="false")
    assert process.until("49 images of 13 units"), process.said()
    process.kill(signal.SIGTERM)
    assert process.end(30) == LEFT, process.said()
    assert "0.5 s are over: leaving at once" in process.said()


def _half_written(workdir, step):
    """What a killed run may leave: a folder under a temporary name, with a part of the files."""
    leftover = workdir / "checkpoints" / f"{step}.orbax-checkpoint-tmp-1"
    (leftover / "teacher").mkdir(parents=True)
    (leftover / "teacher" / "manifest.ocdbt").write_bytes(b"half")


@pytest.fixture(scope="module")
def three_steps(shards, tmp_path_factory):
    """Workdir with checkpoints up to 3."""
    workdir = tmp_path_factory.mktemp("three_steps")
    train(_config(shards, train__steps=3, train__checkpoint_every=1), workdir)
    return workdir


@pytest.fixture
def trained(shards, three_steps, tmp_path):
    """(config, workdir) of a copy that a test may damage."""
    shutil.copytree(three_steps, tmp_path / "w")
    return _config(shards), tmp_path / "w"


def test_a_half_written_checkpoint_is_never_chosen(trained):
    config, workdir = trained
    _half_written(workdir, 4)
    with Checkpointer(workdir, read_only=True) as checkpointer:
        assert checkpointer.latest() == 3
    train(_config(config.data.path, train__steps=4), workdir)
    assert final_state(config, workdir).step == 4
    assert not list((workdir / "checkpoints").glob("*tmp*"))


def _largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(_largest(folder / "training"), 1000),
        lambda folder: _largest(folder / "served").unlink(),
        lambda folder: next((folder / "run").glob("*metadata*")).write_text("{"),
        lambda folder: (folder / "training").rename(folder / "gone"),
    ],
    ids=["truncated", "missing", "not json", "no item"],
)
def test_a_damaged_checkpoint_says_where_to_go_back_to(trained, damage):
    config, workdir = trained
    damage(workdir / "checkpoints" / "3")
    with pytest.raises(CheckpointError, match=r"checkpoints/3 is damaged; delete that folder to go on from step 2"):
        train(_config(config.data.path, train__steps=4), workdir)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(shards, small_disk, tmp_path):
    flags = (*SHORT, "--config.train.keep=100")
    process = Process(small_disk, shards, *flags)
    assert process.end() == 1, process.said()
    assert process.said().splitlines()[-1].startswith("stopped: ")
    assert "No space left on device" in process.said()
    config = _config(shards)
    step = int(final_state(config, small_disk).step)
    assert 0 < step < 15
    subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
    finish(Process(small_disk, shards, *flags))
    finish(Process(tmp_path / "undisturbed", shards, *flags))
    assert_equal(final_state(config, small_disk), final_state(config, tmp_path / "undisturbed"), atol=0)


@pytest.mark.slow
def test_too_many_unreadable_images_stop_the_run(tmp_path):
    toy.write_shards(tmp_path / "shards", broken=lambda image: image.tracklet == "3")
    process = Process(tmp_path / "w", tmp_path / "shards", *SHORT)
    assert process.end() == 1, process.said()
    assert "could not be decoded, expected a share of at most 0.001" in process.said()
    assert final_state(_config(tmp_path / "shards"), tmp_path / "w").step >= 1
    process = Process(tmp_path / "w", tmp_path / "shards", *SHORT, "--config.data.max_skipped=0.2")
    assert process.end() == 0, process.said()
    skipped = [row["skipped"] for row in rows(tmp_path / "w")]
    assert skipped[-1] > 0
    assert f"done: 15 steps; {skipped[-1]:.0f} images skipped" in process.said().splitlines()

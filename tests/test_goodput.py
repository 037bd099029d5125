"""Where the time of a run goes: by hand with a clock that is told the time, and in runs that are killed."""

import json
import signal
import time

import pytest

from cion_jax.distributed.preemption import LEFT
from cion_jax.train import train
from cion_jax.training import goodput
from cion_jax.training.checkpoint import Checkpointer
from cion_jax.training.goodput import FILE, Goodput
from cion_jax.verify import verify
from tests import toy
from tests.runs import SHORT, Process, finish, nothing_left_running

__all__ = ["nothing_left_running"]


class Clock:
    """Tells the time that it was told."""

    now = 1000.0

    def __call__(self):
        return self.now


def _spend(clock, run, kind, seconds):
    with run.spent(kind):
        clock.now += seconds


def _killed_run(workdir, clock):
    """3 s to start, 2 to compile, 10 of steps with 1 of waiting among them, 1 to save step 5, then 4 of steps."""
    run = Goodput(workdir, clock=clock)
    run.resume(0)
    clock.now += 3
    run.enter("steps")
    _spend(clock, run, "compiling", 2)
    clock.now += 6
    _spend(clock, run, "waiting", 1)
    clock.now += 4
    _spend(clock, run, "saving", 1)
    run.saved(5)
    clock.now += 4
    run.beat()
    return run


def test_a_killed_run_by_hand(tmp_path):
    clock = Clock()
    _killed_run(tmp_path, clock)
    # 10 of 3 + 2 + 10 + 1 + 1 + 4 seconds; nobody knows yet that the last 4 are lost.
    assert json.loads((tmp_path / FILE).read_text())["goodput"] == 14 / 21
    clock.now += 100  # nothing runs
    run = Goodput(tmp_path, clock=clock)
    run.resume(5)
    clock.now += 2
    run.enter("steps")
    clock.now += 13
    run.write()
    found = json.loads((tmp_path / FILE).read_text())
    spent = {"starting": 5, "compiling": 2, "steps": 23, "waiting": 1, "saving": 1, "lost": 4, "down": 100}
    assert {kind: seconds for kind, seconds in found["seconds"].items() if seconds} == spent
    assert (found["goodput"], found["restarts"]) == (23 / 36, 1)
    said = "goodput 64% of 36 s, 1 restarts, compiling 6%, waiting 3%, saving 3%, starting 14%, lost 11%"
    assert goodput.describe(tmp_path) == said


def test_all_is_lost_without_a_checkpoint(tmp_path):
    clock = Clock()
    _killed_run(tmp_path, clock)
    run = Goodput(tmp_path, clock=clock)
    run.resume(0)
    assert {kind: seconds for kind, seconds in run.seconds.items() if seconds} == {"lost": 21}


def test_a_run_that_goes_further_back_loses_more(tmp_path):
    clock = Clock()
    run = _killed_run(tmp_path, clock)
    clock.now += 7
    run.saved(9)
    again = Goodput(tmp_path, clock=clock)
    again.resume(5)
    assert again.seconds["lost"] == 4 + 7


def test_it_is_written_once_a_second(tmp_path):
    clock = Clock()
    run = _killed_run(tmp_path, clock)
    clock.now += 0.5
    run.beat()
    assert json.loads((tmp_path / FILE).read_text())["written"] == clock.now - 0.5
    clock.now += 0.6
    run.beat()
    assert json.loads((tmp_path / FILE).read_text())["written"] == clock.now


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seconds": {}}', '{"written": "a", "restarts": 0, "seconds": {}}'])
def test_a_damaged_file_begins_anew(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    run = Goodput(tmp_path)
    run.resume(5)
    assert not any(run.seconds.values())
    assert goodput.describe(tmp_path) == ""


def test_a_run_says_where_its_time_went(shards, tmp_path, capsys):
    began = time.monotonic()
    train(toy.config(shards, train__steps=3), tmp_path)
    took = time.monotonic() - began
    found = json.loads((tmp_path / FILE).read_text())["seconds"]
    assert 0.9 * took < sum(found.values()) <= took
    assert all(found[kind] > 0 for kind in ("starting", "compiling", "steps", "waiting", "saving"))
    said = goodput.describe(tmp_path)
    assert said.startswith("goodput ")
    assert said in capsys.readouterr().err
    assert verify(tmp_path).looked_at.endswith(said)


def test_checkpoints_by_time_as_well_as_by_steps(shards, tmp_path):
    for minutes, steps in ((1e-9, [2, 4, 6, 8, 9]), (0.0, [9])):
        workdir = tmp_path / str(minutes)
        config = toy.config(shards, train__steps=9, train__checkpoint_minutes=minutes, train__keep=100)
        train(config, workdir)
        with Checkpointer(workdir, read_only=True) as checkpointer:
            assert checkpointer.steps() == steps


def _until_worth(process, workdir, restarts, share):
    """Waits until the steps that are not lost have that share of the time of all processes, and a little more."""
    while process.popen.poll() is None:
        time.sleep(0.2)
        found = json.loads((workdir / FILE).read_text()) if (workdir / FILE).exists() else {"restarts": -1}
        if found["restarts"] == restarts and found["goodput"] > share + 0.1 * (1 - share):
            return
    raise AssertionError(process.said())


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "share"), [(1, 0.5), (5, 0.9)])
def test_a_killed_run_keeps_its_share(shards, tmp_path, kills, share):
    """A checkpoint every three seconds; a process lives until it has made up for its start and for what was lost."""
    flags = (SHORT[0], "--config.train.epochs=200000", "--config.train.log_every=50")
    flags += ("--config.train.checkpoint_every=100000", f"--config.train.checkpoint_minutes={3 / 60}")
    finish(Process(tmp_path / "compiled", shards, *flags, "--config.train.steps=1"))  # into the cache
    workdir = tmp_path / "w"
    for kill in range(kills):
        process = Process(workdir, shards, *flags)
        _until_worth(process, workdir, kill, share)
        process.kill()
        process.end()
    process = Process(workdir, shards, *flags)
    _until_worth(process, workdir, kills, share)
    process.kill(signal.SIGTERM)
    assert process.end() == LEFT, process.said()
    found = json.loads((workdir / FILE).read_text())
    print(goodput.describe(workdir), found["seconds"])  # pytest -s shows it
    assert found["restarts"] == kills
    assert found["seconds"]["lost"] > 0
    assert found["goodput"] >= share

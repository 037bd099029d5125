"""Runs of the real training command on this machine, and what they leave behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest

from cion_jax.common.paths import path_name
from cion_jax.distributed import sharding
from cion_jax.tasks import TASKS
from cion_jax.training.checkpoint import Checkpointer
from cion_jax.training.step import init_state
from tests.conftest import QUICKLY

ROOT = Path(__file__).parent.parent
# One program to compile, a checkpoint after every step.
SHORT = ("--config.data.curriculum=((0,2),)", "--config.train.checkpoint_every=1")


class Process:
    """One process of `python -m tests.command`; its output goes into `log`."""

    started: ClassVar[list["Process"]] = []

    def __init__(self, workdir, data, *flags, devices=1, place=(), **environ):
        """`place` is (port, processes, process) of a run of several."""
        self.log = Path(f"{workdir}.{place[2] if place else 0}.log")
        command = [sys.executable, "-m", "tests.command", "--config=tests/command.py", f"--config.data.path={data}"]
        command += [f"--workdir={workdir}", *flags]
        if place:
            command += [f"--coordinator=127.0.0.1:{place[0]}", f"--processes={place[1]}", f"--process={place[2]}"]
        xla = f"--xla_force_host_platform_device_count={devices} {QUICKLY}"
        environ = {**os.environ, "XLA_FLAGS": xla, **environ}
        with open(self.log, "a") as log:
            self.popen = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environ)
        self.started.append(self)

    def until(self, pattern, count=1, seconds=600):
        """Waits for so many matches in the log, from now on; False where the process ends before."""
        start, limit = self.log.stat().st_size, time.monotonic() + seconds
        while time.monotonic() < limit:
            ended = self.popen.poll() is not None
            if len(re.findall(pattern, self.log.read_bytes()[start:].decode(errors="replace"))) >= count:
                return True
            if ended:
                return False
            time.sleep(0.01)
        raise AssertionError(f"{pattern!r} did not come: {self.said()}")

    def kill(self, number=signal.SIGKILL):
        self.popen.send_signal(number)

    def end(self, seconds=600):
        """Waits; the exit status."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running: {self.said()}") from None

    def said(self):
        return self.log.read_text(errors="replace")


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def together(count, workdir, data, *flags, devices=1, environ=lambda i: {}):
    """`count` processes of one run; process i sees the variables `environ(i)`."""
    port = free_port()
    return [Process(workdir, data, *flags, devices=devices, place=(port, count, i), **environ(i)) for i in range(count)]


@pytest.fixture(autouse=True)
def nothing_left_running():
    """Imported by a test module, it ends what a failed test leaves behind."""
    yield
    while Process.started:
        Process.started.pop().kill()


def finish(*processes):
    """Waits for all; raises with the log of one that did not succeed."""
    for process in processes:
        assert process.end() == 0, process.said()


def assert_kills_change_nothing(start, undisturbed, workdir, config, pattern, most, kills):
    """Kills a run again and again, each time after 1 .. `most` - 1 matches in its log: it ends as the undisturbed one.

    `start()` begins it in `workdir`, or goes on.
    """
    rng = np.random.default_rng(0)
    for killed in range(kills):
        process = start()
        process.until(pattern, count=rng.integers(1, most))
        process.kill()
        assert process.end() == -signal.SIGKILL, f"only {killed} kills: the run is too short"
    finish(start())
    assert_bit_equal_run(undisturbed, workdir, config)


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def numbers(workdir):
    """Rows without what depends on the clock."""
    timing = ("images_per_second", "data_wait", "embedding_seconds", "clustering_seconds")
    return [{n: v for n, v in row.items() if n not in timing} for row in rows(workdir)]


def final_state(config, workdir):
    """The newest checkpoint's state on the host."""
    task = TASKS[config.task](config)
    like = jax.eval_shape(lambda: init_state(task))
    like = sharding.abstract(like, sharding.state_shardings(like, sharding.make_mesh(config.mesh), task.rules))
    with Checkpointer(workdir, read_only=True) as checkpointer:
        run = checkpointer.run(checkpointer.latest())
        return jax.device_get(checkpointer.restore(run, like, task.served))


def assert_equal(a, b, **tolerance):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, err_msg=path_name(path), **({"rtol": 0} | tolerance))


def assert_bit_equal_run(one, other, config):
    """Rows and final states are the same."""
    assert numbers(other) == numbers(one)
    assert_equal(final_state(config, other), final_state(config, one), atol=0)


def assert_same_run(one, other, config, rtol=1e-5):
    """Rows alike within `rtol`, final states within 1e-5."""
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_allclose([*b.values()], [*a.values()], rtol=rtol)
    assert_equal(final_state(config, one), final_state(config, other), atol=1e-5)

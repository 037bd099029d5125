"""The same command twice at once, as real processes: the second is refused, the first ends as if it had been alone."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cion_jax.common import images
from tests.runs import SHORT, Process, finish, nothing_left_running, numbers

__all__ = ["nothing_left_running"]

pytestmark = pytest.mark.slow
_PATIENCE = 120.0  # seconds


def _wait_for(path):
    until = time.monotonic() + _PATIENCE
    while not path.exists():
        assert time.monotonic() < until, f"there is no {path}"
        time.sleep(0.02)


def _data_prep(source, output):
    command = [sys.executable, "-m", "data_prep", "--source=tracklets", f"--input={source}", "--embedder=color"]
    return subprocess.Popen([*command, f"--output={output}"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def test_two_data_preps_with_one_output(tmp_path):
    for number in range(8):
        folder = tmp_path / "in" / f"v{number % 2}" / str(number)
        folder.mkdir(parents=True)
        for k in range(3):
            crop = np.full((64, 32, 3), 25 * number + k, np.uint8)
            (folder / f"{k}.jpg").write_bytes(images.encode_jpeg(crop))
    first = _data_prep(tmp_path / "in", tmp_path / "out")
    _wait_for(tmp_path / "out" / ".lock")
    first.send_signal(signal.SIGSTOP)  # it cannot be done before the second has looked
    second = _data_prep(tmp_path / "in", tmp_path / "out")
    said = second.communicate(timeout=_PATIENCE)[1].decode()
    first.send_signal(signal.SIGCONT)
    assert (second.returncode, first.wait(_PATIENCE)) == (2, 0), said
    assert f"is in use by a run of data_prep, process {first.pid} on" in said
    alone = _data_prep(tmp_path / "in", tmp_path / "alone")
    assert alone.wait(_PATIENCE) == 0
    for path in (tmp_path / "alone").glob("*array_record*"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_two_trainers_in_one_workdir(shards, tmp_path):
    flags = (*SHORT, "--config.train.epochs=2")
    first = Process(tmp_path / "run", shards, *flags)
    _wait_for(tmp_path / "run" / ".lock")
    first.kill(signal.SIGSTOP)
    second = Process(tmp_path / "run", shards, *flags)
    assert second.end() == 2, second.said()
    first.kill(signal.SIGCONT)
    assert f"process {first.popen.pid} on" in second.said()
    finish(first, Process(tmp_path / "alone", shards, *flags))
    assert numbers(tmp_path / "run") == numbers(tmp_path / "alone")

"""Processes that miss each other: real ones, but without JAX, so quick to start."""

import signal
import subprocess
import sys
import time

import pytest

from cion_jax.distributed import liveness
from cion_jax.distributed.liveness import LOST
from tests.runs import ROOT, free_port

# Joins, then does what it is told: "sleep", "done", "fail", "abort" (as JAX does when process 0 is gone).
MEMBER = """
import ctypes, os, sys, time
from cion_jax.distributed import liveness
liveness.GRACE = 0.5
process, count, port, task = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
door = liveness.listen() if process == 0 else None
if door:
    print(door.getsockname()[1], flush=True)
calls = liveness.RollCall(process, [f"host{i}" for i in range(count)], ("127.0.0.1", port), door)
print("joined", flush=True)
if task == "fail":
    calls.fail("ShardError: a shard\\n  is missing")
    os._exit(2)
if task == "abort":
    time.sleep(0.2)
    ctypes.CDLL(None).abort()  # without Python's lock, as in a thread of C++
if task == "blame":  # an error that comes before it is known who is gone
    liveness.GRACE = 10
    liveness.leave_without(calls.blame())
if task == "done":
    calls.finish()
    time.sleep(process)
    os._exit(0)
time.sleep(60)
"""


def _start(tasks):
    """One process per task; returns when all have joined."""
    members, port = [], "0"
    for process, task in enumerate(tasks):
        command = [sys.executable, "-c", MEMBER, str(process), str(len(tasks)), port, task]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        members.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
        if process == 0:
            port = members[0].stdout.readline().strip()
    for member in members:
        assert member.stdout.readline() == "joined\n", member.stderr.read()
    return members


def _ends(members):
    """(exit status, last line of stderr) of each."""
    said = [member.communicate(timeout=20)[1].strip() for member in members]
    return [(member.returncode, words.split("\n")[-1]) for member, words in zip(members, said, strict=True)]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_process_is_named_by_all_others(victim):
    members = _start(["sleep"] * 3)
    began = time.monotonic()
    members[victim].kill()
    ends = _ends(members)
    assert time.monotonic() - began < 5
    assert ends.pop(victim) == (-signal.SIGKILL, "")
    for status, words in ends:
        assert status == LOST
        assert words.startswith(f"error: process {victim} (host{victim}) is gone without a word")


@pytest.mark.parametrize("failing", [0, 2])
def test_a_process_that_stops_says_why_to_all_others(failing):
    tasks = ["sleep"] * 3
    tasks[failing] = "fail"
    ends = _ends(_start(tasks))
    assert ends.pop(failing) == (2, "")
    for status, words in ends:
        assert status == LOST
        assert words.startswith(f"error: process {failing} (host{failing}) stopped: ShardError: a shard is missing. ")


def test_an_abort_waits_until_it_is_known_who_is_gone():
    members = _start(["sleep", "abort"])
    time.sleep(0.5)
    members[0].kill()
    status, words = _ends(members)[1]
    assert (status, words.split(" is gone")[0]) == (LOST, "error: process 0 (host0)")


def test_an_error_is_blamed_on_the_process_that_is_gone():
    members = _start(["blame", "sleep"])
    time.sleep(0.2)
    members[1].kill()
    began = time.monotonic()
    assert "process 1 (host1) is gone" in _ends(members)[0][1]
    assert time.monotonic() - began < 5


def test_nobody_misses_who_is_done():
    assert _ends(_start(["done"] * 3)) == [(0, "")] * 3


def test_process_zero_that_does_not_answer():
    with pytest.raises(OSError, match="refused"):
        liveness.RollCall(1, ["a", "b"], ("127.0.0.1", free_port()), None)

"""One process at a time in a folder; what a dead one left is taken over."""

import json
import os
import subprocess
import sys

import pytest

from cion_jax.common import lock

HOLD = """
import sys, time
from pathlib import Path
from cion_jax.common import lock
with lock.held(Path(sys.argv[1]), "a run"):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()


def test_the_second_is_told_who_is_there(tmp_path, holder):
    with pytest.raises(lock.InUseError, match=rf"in use by a run, process {holder.pid} on .*stop it, or give another"):
        lock.held(tmp_path, "another").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_killed_process_is_replaced_at_once(tmp_path, holder, capsys):
    holder.kill()
    holder.wait()
    with lock.held(tmp_path, "another"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert f"process {holder.pid} on" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("age", "lives"), [(5, True), (61, False), (-3600, False)])
def test_a_process_on_another_host_lives_as_long_as_it_renews(tmp_path, age, lives):
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"host": "far", "pid": 1, "born": "2", "what": "a run"}))
    os.utime(path, (os.stat(path).st_mtime - age,) * 2)
    if lives:
        with pytest.raises(lock.InUseError, match="process 1 on far"):
            lock.held(tmp_path, "another").__enter__()
    else:
        with lock.held(tmp_path, "another"):
            pass


def test_it_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with lock.held(tmp_path, "a run"):
        os.utime(tmp_path / ".lock", (0, 0))
        for _ in range(500):
            if (tmp_path / ".lock").stat().st_mtime > 1:
                break
            lock.threading.Event().wait(0.01)
        assert (tmp_path / ".lock").stat().st_mtime > 1


def test_another_process_with_the_same_number_is_not_the_owner(tmp_path):
    mine = {"host": lock.socket.gethostname(), "pid": os.getpid(), "born": "long ago", "what": "a run"}
    (tmp_path / ".lock").write_text(json.dumps(mine))
    with lock.held(tmp_path, "another"):
        pass


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"[]"])
def test_a_damaged_lock_ages_like_one_of_another_host(tmp_path, content):
    path = tmp_path / ".lock"
    path.write_bytes(content)
    with pytest.raises(lock.InUseError, match=r"delete .*\.lock"):
        lock.held(tmp_path, "another").__enter__()
    os.utime(path, (0, 0))
    with lock.held(tmp_path, "another"):
        pass

"""Two runs with one output."""

import json
import os
import socket

import pytest

from cion_jax.common import lock
from data_prep.pipeline.workdir import OutputError, Work


def test_the_second_is_refused_and_leaves_the_first_alone(tmp_path):
    work = Work(tmp_path / "out")
    with work.held():
        work.claim({"seed": 0})
        refused = pytest.raises(lock.InUseError, match=f"out is in use by a run of data_prep, process {os.getpid()} on")
        with refused, Work(tmp_path / "out").held():
            pass
    with work.held():  # it has let go
        assert work.claim({"seed": 0}) is False
    assert [path.name for path in work.output.iterdir()] == ["work"]


def test_what_a_killed_run_left_is_taken_over(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    gone = {"host": socket.gethostname(), "pid": 2**22 + 1, "born": "1", "what": "a run of data_prep"}
    (tmp_path / "out" / ".lock").write_text(json.dumps(gone))
    with Work(tmp_path / "out").held():
        Work(tmp_path / "out").claim({"seed": 0})
    assert "is gone, going on in its place" in capsys.readouterr().err


def test_a_run_that_could_not_start_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), Work(tmp_path / "out").held():
        raise KeyError("no such source")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is a file"), Work(tmp_path / "file").held():
        pass

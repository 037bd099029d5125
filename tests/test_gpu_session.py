"""The session on an accelerator, without one: its table, its time, and (slow) all of its commands in small."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_session
from benchmarks.gpu_session import Result, Stage

ROOT = Path(__file__).parent.parent


def test_tables_are_read_back():
    text = "# title\n| a | b |\n| --- | --- |\n| 1 | x y |\na warning\n| 2 |  |\nbetween\n| c |\n| --- |\n| 3 |\n"
    assert gpu_session.tables(text) == [{"a": "1", "b": "x y"}, {"a": "2", "b": ""}, {"c": "3"}]


def _asleep(tmp_path, monkeypatch):
    """A command that prints a row, starts another process and sleeps on."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    child = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    lines = ["import subprocess, sys, time", "print('| a |\\n| --- |\\n| 1 |', flush=True)"]
    lines += [f"print(subprocess.Popen({child}).pid, flush=True)", "time.sleep(600)"]
    (tmp_path / "benchmarks" / "asleep.py").write_text("\n".join(lines))
    monkeypatch.setattr(gpu_session, "ROOT", tmp_path)


def _runs(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_what_is_stopped_keeps_its_rows_and_leaves_nothing_running(tmp_path, monkeypatch):
    _asleep(tmp_path, monkeypatch)
    found = gpu_session.run(Stage("asleep", ("asleep",), 1.0), 5.5, tmp_path)
    assert (found.failed, found.rows) == ("stopped after 6 s", [{"a": "1"}])
    child = (tmp_path / "asleep.txt").read_text().split()[-1]
    for _ in range(100):
        if not _runs(child):
            break
        time.sleep(0.1)
    assert not _runs(child)


def test_what_fails_or_is_not_reached_is_said(tmp_path):
    chosen = [Stage("well", ("common",), 1.0), Stage("gone", ("no_such_thing",), 1.0), Stage("late", ("common",), 0.0)]
    results = gpu_session.session(chosen, 1.0, tmp_path)
    assert [bool(result.failed) for result in results[:2]] == [False, True]
    assert "No module named" in results[1].failed
    assert gpu_session.run(chosen[0], 4.0, tmp_path).failed == "not begun: 4 s were left for it"
    said = (tmp_path / "session.md").read_text()
    assert "| gone | NOT COMPLETE | exit status 1" in said
    assert "commit: " in said
    assert len(json.loads((tmp_path / "session.json").read_text())["stages"]) == 3


def test_a_stage_may_have_what_the_one_before_left(tmp_path, monkeypatch):
    """Shares of 1, 2 and 1 of 8 minutes: 2 minutes, then 6 less what the first took, and so on; by a clock of ours."""
    now, given = [0.0], []
    monkeypatch.setattr(gpu_session.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(gpu_session, "write", lambda *_: None)

    def run(stage, seconds, out):
        given.append(seconds)
        now[0] += 30
        return Result(stage.name, "", 30, [])

    monkeypatch.setattr(gpu_session, "run", run)
    gpu_session.session([Stage(str(n), (), n) for n in (1, 2, 1)], 8.0, tmp_path)
    assert given == [120, 360 - 30, 480 - 60]


def test_one_table_by_hand():
    steps = [{"backbone": "vit_base", "options": "plain", "images/s": "900.0", "waiting": ""}]
    steps += [{"backbone": "vit_base", "options": "fp8_products", "compile s": "FAILED: no such type", "images/s": ""}]
    views = [{"batch": "32", "images/s": "9000"}, {"batch": "96", "images/s": "18000"}]
    forward = [{"backbone": "vit_base", "floor": "1", "forward": "9382"}]
    results = [Result("step", "", 1, steps), Result("views", "", 1, views), Result("forward", "", 1, forward)]
    (found,) = gpu_session.derived(results)
    assert found.rows == [
        {"views' share of a step": "vit_base", "options": "plain", "share": "5.0%"},
        {"embedding MSMT17's images": "vit_base", "s": "10.0"},
    ]
    lines = gpu_session.markdown({"card": "none"}, [*results, found]).splitlines()
    assert "| step | vit_base | options plain, images/s 900.0 |" in lines
    assert "| derived | vit_base | options plain, share 5.0% |" in lines


def test_every_option_is_measured():
    stages = gpu_session.stages("DATA", False, 9.0)
    step = next(stage for stage in stages if stage.name == "step")
    options = next(part for part in step.command if part.startswith("--options="))
    assert options.removeprefix("--options=").split(",") == ["plain", *gpu_session.OPTIONS]
    assert sum(stage.minutes for stage in stages) == pytest.approx(9)
    # Parity ends by itself, so that it says what it did not reach.
    assert 2 < float(stages[0].command[1].removeprefix("--minutes=")) < stages[0].minutes - 0.25


@pytest.mark.slow
def test_a_dry_run_of_all_commands(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_session", "--dry", "--minutes=30", f"--out={tmp_path}"]
    one_device = {**os.environ, "XLA_FLAGS": ""}  # as some options are for one; parity takes eight by itself
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=one_device)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "session.json").read_text())["stages"]
    assert all(stage["rows"] for stage in found)
    assert {stage["stage"] for stage in found} > {"parity", "step", "fed", "views", "loss", "evaluation", "derived"}

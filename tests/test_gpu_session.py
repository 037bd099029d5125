"""The session on an accelerator, without one: its table, its time, and (slow) all of its commands in small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_session
from benchmarks.gpu_session import Result, Stage

ROOT = Path(__file__).parent.parent


def test_tables_are_read_back():
    text = "# title\n| a | b |\n| --- | --- |\n| 1 | x y |\n| 2 |  |\nbetween\n| c |\n| --- |\n| 3 |\n"
    assert gpu_session.tables(text) == [{"a": "1", "b": "x y"}, {"a": "2", "b": ""}, {"c": "3"}]


def test_what_fails_or_is_not_reached_is_said(tmp_path):
    chosen = [Stage("well", ("common",), 1.0), Stage("gone", ("no_such_thing",), 1.0), Stage("late", ("common",), 0.0)]
    results = gpu_session.session(chosen, 1.0, tmp_path)
    assert [bool(result.failed) for result in results] == [False, True, True]
    assert "No module named" in results[1].failed
    assert results[2].failed == "stopped after 0 s"
    assert gpu_session.run(chosen[0], 4.0, tmp_path).failed == "not begun in time"
    said = (tmp_path / "session.md").read_text()
    assert "| gone | NOT COMPLETE | exit status 1" in said
    assert "commit: " in said
    assert len(json.loads((tmp_path / "session.json").read_text())["stages"]) == 3


def test_one_table_by_hand():
    steps = [{"backbone": "vit_base", "options": "plain", "images/s": "900.0", "waiting": ""}]
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


def test_every_option_is_measured_by_itself_and_with_the_others():
    step = next(stage for stage in gpu_session.stages("DATA", dry=False) if stage.name == "step")
    options = next(part for part in step.command if part.startswith("--options="))
    names = list(gpu_session.OPTIONS)
    assert options.removeprefix("--options=").split(",") == ["plain", *names, "+".join(gpu_session.ALL)]
    assert sum(stage.minutes for stage in gpu_session.stages("DATA", dry=False)[:2]) < 9


@pytest.mark.slow
def test_a_dry_run_of_all_commands(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_session", "--dry", "--minutes=30", f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "session.json").read_text())["stages"]
    assert all(stage["rows"] for stage in found)
    assert {stage["stage"] for stage in found} > {"parity", "step", "fed", "views", "loss", "host input", "derived"}

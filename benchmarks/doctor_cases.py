"""What the doctor says of inputs that checks make: a table, a row for every time that a check runs data_prep.

python -m benchmarks.doctor_cases --cases=../shared/field

Every `CASE/check.py` below the folder is run with a stand-in for Python (the variable PY) that asks the doctor instead
of running data_prep, and does nothing for other programs; what the check thinks of that does not matter here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import app, flags

_CASES = flags.DEFINE_string("cases", None, "Folder of cases.")
_NAMED = ("source", "input")  # flags
_SECONDS = 300  # that a case may take
_ASK = """
import json, subprocess, sys
module, arguments = sys.argv[2:3], sys.argv[3:]
if module == ["data_prep"]:
    kept = [each for each in arguments if each.startswith(("--source=", "--input=", "--config"))]
    command = [sys.executable, "-m", "data_prep.doctor", *kept]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    with open({log!r}, "a") as log:
        log.write(json.dumps([kept, done.returncode, done.stdout, done.stderr]) + "\\n")
    sys.exit(done.returncode)
"""


def main(_: Sequence[str]) -> None:
    """Prints the table; what is the same twice is there once."""
    print("| case | source | what the doctor says | status |\n|---|---|---|---|")
    for check in sorted(Path(_CASES.value or "").glob("*/check.py")):
        for row in dict.fromkeys(_row(*each) for each in _asked(check)):
            print(f"| {check.parent.name} | {row}")


def _row(kept: list[str], status: int, out: str, err: str) -> str:
    source, place = (next(each.partition("=")[2] for each in kept if each.startswith(f"--{n}=")) for n in _NAMED)
    said = _said(err if status else out).replace(place, "INPUT").replace("|", "\\|")
    return f"{source} | {said} | {status} |"


def _asked(check: Path) -> Iterator[tuple[list[str], int, str, str]]:
    """(flags, exit status, stdout, stderr) of the doctor for every run of data_prep in a check."""
    with tempfile.TemporaryDirectory() as folder:
        log, ask, stand_in = (Path(folder, name) for name in ("log", "ask.py", "python"))
        ask.write_text(_ASK.format(log=str(log)))
        stand_in.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} {shlex.quote(str(ask))} "$@"\n')
        stand_in.chmod(0o755)
        own = {"PY": str(stand_in), "REPO": os.getcwd(), "PYTHONPATH": os.getcwd()}
        subprocess.run(
            [sys.executable, check.resolve()], env=os.environ | own, capture_output=True, timeout=_SECONDS, check=False
        )
        for line in log.read_text().splitlines() if log.exists() else ():
            yield json.loads(line)


def _said(text: str) -> str:
    """The lines below the table of the doctor, or its refusal, as one."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not re.match(r"[┏┃┡│└├]", line)]
    return "; ".join(lines).removeprefix("error: ").replace(":; ", ": ")


if __name__ == "__main__":
    flags.mark_flag_as_required("cases")  # not where it is defined: that would bind every program that imports this
    app.run(main)

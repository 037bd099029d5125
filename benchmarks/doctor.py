"""What looking before cropping costs: processor time of the doctor beyond what reading the same texts takes anyway.

python -m benchmarks.doctor --input=runs/demo/street/videos
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from data_prep import doctor, sources
from data_prep.config import Config, MotConfig
from data_prep.pipeline import run
from data_prep.sources import _opened

_INPUT = flags.DEFINE_string("input", None, "Folder of sequences, as --source=mot reads them.", required=True)
_FRAMES = MotConfig(first_frame=1)  # as the demo's street counts
_TIMES = flags.DEFINE_integer("times", 5, "How often; medians are told.")


def main(_: Sequence[str]) -> None:
    """Measures and prints."""
    logging.set_verbosity(logging.WARNING)
    alone = statistics.median(_seconds(_read) for _ in range(_TIMES.value))
    both = statistics.median(_seconds(_look_and_read) for _ in range(_TIMES.value))
    with tempfile.TemporaryDirectory() as folder:
        job = run.Job("mot", _INPUT.value, "color", Path(folder, "out"), Config(mot=_FRAMES))
        whole = _seconds(lambda: run.run(job))
    print(f"reading {alone:.3f} s, looking and reading {both:.3f} s, the whole run {whole:.2f} s of processor time")
    print(f"looking costs {both - alone:.3f} s, {(both - alone) / whole:.1%} of the run")


def _look_and_read() -> None:
    doctor.check(sources.open("mot", _INPUT.value, settings=_FRAMES))
    _read()


def _read() -> None:
    source = sources.open("mot", _INPUT.value, settings=_FRAMES)  # a worker opens its own
    for video in source.videos():
        source.read(video)


def _seconds(work: Callable[[], object]) -> float:
    """Processor time of some work from a cold start, in seconds."""
    _opened.forget()
    start = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        work()
    return time.process_time() - start


if __name__ == "__main__":
    app.run(main)

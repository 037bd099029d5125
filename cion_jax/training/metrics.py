"""Where measurements go: metrics.jsonl, TensorBoard, one line with the time left. The only file that knows CLU.

Of several processes all look at every step, so that all stop at the same one; process 0 alone writes.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax

from cion_jax.common.files import finished, read_regular
from cion_jax.common.progress import duration
from cion_jax.training.checkpoint import SaveError
from cion_jax.training.task import Task

ROWS = "metrics.jsonl"
NOTES = (b'"mAP":', b'"clusters":')  # what is in rows of their own alone: of scores, of an epoch's clusters


class TrainingStopped(RuntimeError):
    """The run cannot go on; its checkpoints are in order."""


class Metrics:
    """Looks at every step's measurements, one step late, and writes a row every `train.log_every` steps.

    Late, so that the device already works on the next step while the host waits for the numbers of the last.

    Attributes:
      seen: the measurements looked at last.
    """

    def __init__(
        self, workdir: Path, task: Task, start: int, end: int, on_row: Callable[[dict[str, float]], None] | None = None
    ):
        """Opens the files of a run that is about to do the steps `start` + 1 .. `end`.

        Rows beyond `start`, left by a run that got further than its last checkpoint, are dropped: those steps are
        done again. `on_row` is called with every row that is written.
        """
        self._on_row = on_row
        self._rows = workdir / ROWS
        self._board = None
        if jax.process_index() == 0:
            _keep_rows(self._rows, start)
            self._board = _open_board(workdir / "tensorboard")
        self.seen: dict[str, float] = {}
        self._task, self._settings, self._start, self._end = task, task.config.train, start, end
        self._held: tuple[int, dict, float | None] | None = None
        self._row_step, self._row_time, self._waited = start, time.monotonic(), 0.0
        self._began = self._row_time

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The time spent in here is time that the device waits for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time spent in here is no time of training."""
        began = time.monotonic()
        yield
        self._row_time += time.monotonic() - began
        self._began += time.monotonic() - began

    def note(self, step: int, row: Mapping[str, float]) -> None:
        """Writes a row of its own, with a name of `NOTES` in it, about a step that may have another."""
        if self._board:
            self._append(step, row, self._board)
            if self._on_row:
                self._on_row({"step": step, **row})

    def add(self, step: int, measured: dict) -> None:
        """Takes the measurements (scalars) of step number `step`, which was just dispatched."""
        self.flush()
        # On a CPU a step is done when it comes here (`memory.one_step_at_a_time`), elsewhere when it is looked at.
        self._held = step, measured, time.monotonic() if measured["loss"].is_ready() else None

    def flush(self) -> None:
        """Looks at the step held back.

        Raises:
          TrainingStopped: its loss or gradient is not finite.
        """
        if self._held is None:
            return
        (step, measured, done), self._held = self._held, None
        self.seen = {name: float(value) for name, value in jax.device_get(measured).items()}
        finite = math.isfinite(self.seen["loss"]) and math.isfinite(self.seen["gradient_norm"])
        if finite and step % self._settings.log_every and step != self._end:
            return
        if self._board:
            self._write(step, self.seen, self._board, done or time.monotonic())
        if not finite:
            raise TrainingStopped(_not_finite(step, self.seen))
        warning = self._task.watch(self.seen)
        if warning and self._board:
            print(f"warning: step {step}: {warning}", file=sys.stderr)

    def close(self) -> None:
        """Writes what is held back."""
        self.flush()
        if self._board:
            self._board.close()

    def _write(self, step: int, row: dict[str, float], board: Any, now: float) -> None:
        seconds = now - self._row_time
        images = (step - self._row_step) * self._task.config.data.batch_size
        row = row | {"images_per_second": images / seconds, "data_wait": self._waited / seconds}
        self._row_step, self._row_time, self._waited = step, now, 0.0
        self._append(step, row, board)
        left = (now - self._began) / max(step - self._start, 1) * (self._end - step)
        shown = "".join(f"{label} {row[name]:.2f}  " for name, label in self._task.shown.items())
        print(
            f"step {step}/{self._end}  loss {row['loss']:.4f}  {shown}"
            f"{row['images_per_second']:.0f} images/s  waiting {row['data_wait']:.0%}  {duration(left)} left"
            + (f"  {row['skipped']:.0f} images skipped" if row["skipped"] else ""),
            file=sys.stderr,
            flush=True,
        )
        if self._on_row:
            self._on_row({"step": step, **row})

    def _append(self, step: int, row: Mapping[str, float], board: Any) -> None:
        try:
            with open(self._rows, "a") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")
        except OSError as error:
            raise SaveError(f"step {step}: no row can be written ({error}); make room and resume") from error
        board.write_scalars(step, row)


class Trace:
    """Profiles some steps into a folder, for TensorBoard or Perfetto; use as a context manager."""

    def __init__(self, folder: Path, steps: tuple[int, ...]):
        """`steps` are the numbers of the first and the last step, or nothing; process 0 alone traces."""
        self._folder = folder
        self._steps = range(steps[0], steps[1] + 1) if steps and jax.process_index() == 0 else range(0)
        self._on = False

    def reach(self, step: int, settle: Callable[[], None]) -> None:
        """Step number `step` comes next; `settle` waits for those before it."""
        if (step in self._steps) != self._on:
            settle()
            self._turn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            self._turn()

    def _turn(self) -> None:
        self._on = not self._on
        if self._on:
            jax.profiler.start_trace(self._folder)
        else:
            jax.profiler.stop_trace()


class _NoBoard:
    """In place of TensorBoard's writer."""

    def write_scalars(self, step: int, row: dict[str, float]) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Nothing to close."""


def _open_board(folder: Path) -> Any:
    """TensorBoard's writer; where CLU or TensorFlow is missing, one that writes nothing, which is said once."""
    try:
        from clu import metric_writers  # imports TensorFlow, which takes seconds
    except ImportError as error:
        hint = "pip install 'cion-jax[tensorboard]'"
        print(f"no TensorBoard ({error}; `{hint}` for it): measurements go to {ROWS} alone", file=sys.stderr)
        return _NoBoard()
    return metric_writers.SummaryWriter(str(folder))


def _not_finite(step: int, row: dict[str, float]) -> str:
    return (
        f"step {step}: loss {row['loss']}, gradient norm {row['gradient_norm']}, learning rate "
        f"{row['learning_rate']:.2e}; the last good checkpoint is kept. Look at gradient_norm in {ROWS} "
        "before it; lower optimizer.learning_rate, lengthen optimizer.warmup_epochs or set model.dtype=float32"
    )


def _keep_rows(path: Path, step: int) -> None:
    """Drops rows of later steps, a last line cut short, and lines that are no rows: these are said."""
    if not path.exists():
        return
    lines = read_regular(path).split(b"\n")[:-1]
    rows = [(line, step_of(line)) for line in lines]
    damaged = sum(at is None for _, at in rows)
    if damaged:
        print(f"warning: {path} has {damaged} damaged lines, which are left out", file=sys.stderr)
    with finished(path) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line, at in rows if at is not None and at <= step))


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a run's measurements; lines that are no rows, and what is no number in them, are left out."""
    lines = read_regular(path).split(b"\n") if path.exists() else []
    rows = [json.loads(line) for line in lines if step_of(line) is not None]
    return [{name: value for name, value in row.items() if isinstance(value, int | float)} for row in rows]


def step_of(line: bytes) -> int | None:
    """The step of a row; None where a line is none."""
    try:
        step = json.loads(line)["step"]
        return step if type(step) is int else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None

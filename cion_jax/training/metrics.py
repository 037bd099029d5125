"""Where measurements go: metrics.jsonl, TensorBoard, one line with the time left. The only file that knows CLU.

Of several processes all look at every step, so that all stop at the same one; process 0 alone writes.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from cion_jax.common.progress import duration
from cion_jax.training.checkpoint import SaveError
from cion_jax.training.config import Config

ROWS = "metrics.jsonl"


class TrainingStopped(RuntimeError):
    """The run cannot go on; its checkpoints are in order."""


class Metrics:
    """Looks at every step's measurements, one step late, and writes a row every `train.log_every` steps.

    Late, so that the device already works on the next step while the host waits for the numbers of the last.

    Attributes:
      seen: the measurements looked at last.
    """

    def __init__(self, workdir: Path, config: Config, start: int, end: int):
        """Opens the files of a run that is about to do the steps `start` + 1 .. `end`.

        Rows beyond `start`, left by a run that got further than its last checkpoint, are dropped: those steps are
        done again.
        """
        self._rows = workdir / ROWS
        self._board = None
        if jax.process_index() == 0:
            from clu import metric_writers  # imports TensorFlow, which takes seconds

            _keep_rows(self._rows, start)
            self._board = metric_writers.SummaryWriter(str(workdir / "tensorboard"))
        self.seen: dict[str, float] = {}
        self._config, self._start, self._end = config, start, end
        self._held: tuple[int, dict, float | None] | None = None
        self._row_step, self._row_time, self._waited = start, time.monotonic(), 0.0
        self._began = self._row_time

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The time spent in here is time that the device waits for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

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
        row = {name: value for name, value in self.seen.items() if name != "asked_to_leave"}
        finite = math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])
        if finite and step % self._config.train.log_every and step != self._end:
            return
        if self._board:
            self._write(step, row, self._board, done or time.monotonic())
        if not finite:
            raise TrainingStopped(_not_finite(step, row))
        warning = collapse_warning(row["teacher_entropy"], self._config.model.prototypes)
        if warning and self._board:
            print(f"warning: step {step}: {warning}", file=sys.stderr)

    def close(self) -> None:
        """Writes what is held back."""
        self.flush()
        if self._board:
            self._board.close()

    def _write(self, step: int, row: dict[str, float], board: Any, now: float) -> None:
        seconds = now - self._row_time
        images = (step - self._row_step) * self._config.data.batch_size
        row = row | {"images_per_second": images / seconds, "data_wait": self._waited / seconds}
        self._row_step, self._row_time, self._waited = step, now, 0.0
        try:
            with open(self._rows, "a") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")
        except OSError as error:
            raise SaveError(f"step {step}: no row can be written ({error}); make room and resume") from error
        board.write_scalars(step, row)
        left = (now - self._began) / max(step - self._start, 1) * (self._end - step)
        print(
            f"step {step}/{self._end}  loss {row['loss']:.4f}  teacher entropy {row['teacher_entropy']:.2f}  "
            f"{row['images_per_second']:.0f} images/s  waiting {row['data_wait']:.0%}  {duration(left)} left"
            + (f"  {row['skipped']:.0f} images skipped" if row["skipped"] else ""),
            file=sys.stderr,
            flush=True,
        )


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

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._on:
            self._turn()

    def _turn(self) -> None:
        self._on = not self._on
        if self._on:
            jax.profiler.start_trace(self._folder)
        else:
            jax.profiler.stop_trace()


def collapse_warning(entropy: float, prototypes: int) -> str | None:
    """What the teacher's entropy (nats) says about collapse; None where all is well."""
    limit = math.log(prototypes)
    if entropy < 0.01 * limit:
        return (
            f"the teacher puts everything on one prototype (entropy {entropy:.3f} of {limit:.2f} nats); "
            "lower optimizer.learning_rate or loss.center_momentum"
        )
    if entropy > 0.999 * limit:
        return (
            f"the teacher's output is uniform (entropy {entropy:.3f} of {limit:.2f} nats); "
            "lower loss.teacher_temperature or raise optimizer.learning_rate"
        )
    return None


def _not_finite(step: int, row: dict[str, float]) -> str:
    return (
        f"step {step}: loss {row['loss']}, gradient norm {row['gradient_norm']}, learning rate "
        f"{row['learning_rate']:.2e}; the last good checkpoint is kept. Look at gradient_norm and teacher_entropy in "
        f"{ROWS} before it; lower optimizer.learning_rate, lengthen optimizer.warmup_epochs or set model.dtype=float32"
    )


def _keep_rows(path: Path, step: int) -> None:
    """Drops rows of later steps and a last line cut short."""
    if not path.exists():
        return
    lines = path.read_text().split("\n")[:-1]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept))
    temporary.replace(path)

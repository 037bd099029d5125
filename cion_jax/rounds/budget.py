"""Minutes into steps, once: what is written down is what a resumed run does, whatever the clock says then."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cion_jax.common.files import write_text
from cion_jax.common.progress import duration
from cion_jax.data.records import damage
from cion_jax.training.config import RunConfig

TRIAL = 6  # steps that are timed, after the first
SHORTEST = 100  # steps of a round, where there are several: the shortest that was compared
FEWEST = 20  # steps below which it is not worth finding identities for
LAST = 60.0  # seconds that export and report take, about


@dataclass(frozen=True)
class Plan:
    """How long every round trains.

    Attributes:
      steps: of a round.
      rounds: at most.
      seconds: of a step, when that was measured; 0: it was not.
    """

    steps: int
    rounds: int
    seconds: float = 0.0

    def describe(self, batch_size: int) -> str:
        """For people."""
        lasts = f", about {duration(self.steps * self.seconds)} each" if self.seconds else ""
        return f"{self.rounds} rounds of {self.steps:,} steps ({self.steps * batch_size:,} images){lasts}"


def written(path: Path, make: Callable[[], Plan]) -> Plan:
    """The plan in a file, made where there is none."""
    if not path.is_file():
        write_text(path, json.dumps(dataclasses.asdict(make()), indent=1) + "\n")
    with damage(path, "give another --output"):
        found = Plan(**json.loads(path.read_text("utf-8")))
        if min(found.steps, found.rounds) < 1:
            raise ValueError(f"it has {found.steps} steps and {found.rounds} rounds")
        return found


class Pace(NamedTuple):
    """Seconds of a run on this machine: until its first step is done (reading, compiling), and of a step."""

    begin: float
    step: float


def plan(left: float, rounds: int, overhead: float, pace: Pace) -> Plan:
    """What fits into the time that is left.

    Args:
      left: seconds for all that follows, export included.
      rounds: wanted; fewer where each would be shorter than `SHORTEST` steps. A single one has `FEWEST` at least.
      overhead: seconds of a round besides its steps: embedding, finding identities, measuring. The first round's
        identities are found already.
      pace: of its run.
    """
    for count in range(rounds, 0, -1):
        steps = int(((left - LAST - (count - 1) * overhead) / count - pace.begin) / pace.step)
        if steps >= (SHORTEST if count > 1 else FEWEST):
            return Plan(steps, count, pace.step)
    needed = duration(pace.begin + FEWEST * pace.step + LAST)
    print(
        f"warning: {duration(max(left, 0))} are left for training, {needed} are needed for {FEWEST} steps: it will "
        "take longer than --minutes; give more, or --steps",
        file=sys.stderr,
    )
    return Plan(FEWEST, 1, pace.step)


def paced(config: RunConfig, folder: Path, train: Callable[[RunConfig, Path, Callable[[dict], None]], None]) -> Pace:
    """The pace of the run that is to come, by the median of a few steps of it; its folder is deleted afterwards.

    Args:
      config: of the run.
      folder: to be made.
      train: f(config, folder, on_row) trains.
    """
    times: list[float] = []
    short = dataclasses.replace(config.train, steps=TRIAL + 1, log_every=1, checkpoint_every=10**6)
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    train(dataclasses.replace(config, train=short), folder, lambda _: times.append(time.monotonic()))
    shutil.rmtree(folder)
    step = statistics.median(after - before for before, after in itertools.pairwise(times))
    return Pace(times[0] - began, step)

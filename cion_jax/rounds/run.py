"""The rounds, one folder each. What is done is skipped, so the same command continues a run that was stopped.

OUT/start.safetensors          the network that was given, with the statistics of these images
    probe.npz                  tracks that every network is measured on
    plan.json                  how many steps a round has
    round0/score.json          the network that was given
    round1/{data,run,score.json}   identities found with it; the run on them; its network measured
    ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import data_prep
from cion_jax.common import checksums, lock
from cion_jax.common.errors import UserError
from cion_jax.common.files import write_text
from cion_jax.common.printable import lines
from cion_jax.data.records import damage
from cion_jax.data.shards import UnreadableError
from cion_jax.distributed import cpu_allocator
from cion_jax.distributed.preemption import LEFT, Signals
from cion_jax.rounds import budget, halves, probe, recipes
from cion_jax.rounds.budget import Plan
from cion_jax.rounds.halves import Score
from cion_jax.rounds.probe import Probe
from cion_jax.training import loop
from cion_jax.training.checkpoint import SaveError
from cion_jax.training.config import RunConfig
from cion_jax.training.metrics import TrainingStopped
from cion_jax.weights import start as weights_start
from cion_jax.weights import statistics
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.load import load
from data_prep import doctor, sources
from data_prep.config import Config
from data_prep.pipeline.workdir import InputChangedError
from data_prep.types import Source

T = TypeVar("T")
GRACE = 60.0  # seconds to the end of the process once it is asked to leave
_START = "start.safetensors"


@dataclass(frozen=True)
class Job:
    """What was asked for.

    Attributes:
      source, input: as data_prep takes them.
      checkpoint: as `weights.load` takes it.
      output: folder of the rounds.
      minutes: for everything.
      rounds: at most.
      steps: of a round; 0: as many as the minutes allow.
      config: config file of the training runs, or the name of a packaged one.
      settings: changes to it, by dotted name.
      data: settings of data_prep.
    """

    source: str
    input: Path
    checkpoint: str
    output: Path
    minutes: float = 60.0
    rounds: int = 4
    steps: int = 0
    config: str = "adapt"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: Config = dataclasses.field(default_factory=Config)

    def record(self) -> dict[str, Any]:
        """What makes two jobs the same."""
        record = dataclasses.asdict(self)
        del record["output"]
        return json.loads(json.dumps(record | {"input": str(self.input)}))


@dataclass(frozen=True)
class Round:
    """A network, and what is known of it.

    Attributes:
      number: 0 for the network that was given.
      checkpoint: as `weights.load` takes it.
      score: of the probe.
      data: what data_prep said of the identities that it learned; nothing for round 0.
    """

    number: int
    checkpoint: str
    score: Score
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


class Clock:
    """Seconds of the parts of a job that come before its plan, of all processes that worked on them.

    Attributes:
      seconds: by part.
    """

    def __init__(self, path: Path):
        self._path = path
        with damage(path, "give another --output"):
            found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            self.seconds: dict[str, float] = {part: float(seconds) for part, seconds in found.items()}

    def timed(self, part: str, work: Callable[[], T]) -> T:
        """Does a part; the first time that it comes to its end counts."""
        began = time.monotonic()
        done = work()
        if part not in self.seconds:
            self.seconds[part] = round(time.monotonic() - began, 3)
            write_text(self._path, json.dumps(self.seconds, indent=1) + "\n")
        return done


@dataclass(frozen=True)
class _Given:
    """What all rounds have in common: the network that was given, its file, what is measured, the time it took."""

    network: Backbone
    file: str
    probe: Probe
    clock: Clock


class LeftError(Exception):
    """Asked to leave; what is done is saved."""


def status(work: Callable[[Callable[[], bool]], object]) -> int:
    """Exit status of a program that trains in rounds: 0 done, 1 training had to stop, `LEFT` asked to leave and saved.

    Args:
      work: takes what says whether it is asked to leave.
    """
    cpu_allocator.one_step_at_a_time()
    with Signals(GRACE) as signals:
        cpu_allocator.keep_freed()
        try:
            work(lambda: signals.asked)
        except LeftError:
            return LEFT
        except (TrainingStopped, SaveError, UnreadableError) as stop:
            print(f"stopped: {stop}", file=sys.stderr)
            return 1
    return 0


def run(job: Job, asked_to_leave: Callable[[], bool] = lambda: False) -> tuple[list[Round], Probe]:
    """Runs or continues a job.

    Args:
      job: what to do.
      asked_to_leave: whether to leave after the step at hand.

    Returns:
      All rounds in order, that of the given network first, and the probe that they were measured on.

    Raises:
      UserError: input, checkpoint, settings and output do not fit together.
      LeftError: it was asked to leave.
    """
    recipes.loaded(job.config)  # mistakes are told before the work, not after it
    source = _source(job)
    job.output.mkdir(parents=True, exist_ok=True)
    with lock.held(job.output, "an adaptation"):
        _claim(job)
        clock = Clock(job.output / "seconds.json")
        measured = clock.timed("probe", lambda: probe.opened(job.output / "probe.npz", source))
        start = clock.timed("start", lambda: _start(job, measured))
        rounds = [clock.timed("score", lambda: _scored(job, 0, start, measured))]
        given = _Given(load(start), start, measured, clock)
        recipes.unfitted(job.config, job.settings, job.output, given.network)
        for number in range(1, job.rounds + 1):
            latest = _round(job, number, rounds[-1], given, asked_to_leave)
            if latest is None:
                break
            rounds.append(latest)
            if number < job.rounds and not better(*rounds[-2:]):
                print(f"round {number} is no better than the one before: no further round", file=sys.stderr)
                break
        return rounds, measured


def _round(job: Job, number: int, before: Round, given: _Given, asked_to_leave: Callable[[], bool]) -> Round | None:
    """Identities, training, measurement; None where the plan has no such round."""
    _leave(asked_to_leave)
    data = given.clock.timed(f"identities {number}", lambda: _identities(job, number, before.checkpoint))
    _leave(asked_to_leave)
    plan = _plan(job, given)
    if number > plan.rounds:
        return None
    if not (_folder(job, number) / "score.json").is_file():
        _train(_settings(job, number, given, before.checkpoint, plan.steps), _run(job, number), asked_to_leave)
    return _scored(job, number, str(_run(job, number)), given.probe, data)


def better(before: Round, after: Round) -> bool:
    """Whether a further round is worth its time; a short one gains less than can be shown, so the bare quality says."""
    return after.score.quality > before.score.quality


def best(rounds: list[Round]) -> Round:
    """The round whose network is to be kept.

    What was given is replaced by what is shown to be better. After that, training on this input is known to teach, and
    a further round's network replaces the one before unless it is shown to be worse.
    """
    kept = rounds[0]
    for each in rounds[1:]:
        low, high = halves.rise(kept.score, each.score)
        if low > 0 or (kept.number and high >= 0):
            kept = each
    return kept


def _leave(asked_to_leave: Callable[[], bool]) -> None:
    if asked_to_leave():
        raise LeftError


def _source(job: Job) -> Source:
    source = sources.open(job.source, job.input, **sources.options(job.source, job.data))
    doctor.check(source)
    return source


def _claim(job: Job) -> None:
    """Raises UserError where the folder is another job's."""
    path, wanted = job.output / "job.json", job.record() | _network(job)
    if not path.is_file():
        if any(each.name != ".lock" for each in job.output.iterdir()):
            raise UserError(f"{job.output} holds something else; give a new --output")
        write_text(path, json.dumps(wanted, indent=1) + "\n")
    with damage(path, "give another --output"):
        found = {"network": wanted.get("network")} | json.loads(path.read_text("utf-8"))
        different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        said = ", ".join(f"{name} was {found.get(name)!r}, is {wanted[name]!r}" for name in different)
        raise UserError(f"{job.output} was begun with other settings: {said}; give them again, or a new --output")


def _network(job: Job) -> dict[str, str]:
    """What tells the network that was given from another one of the same name; nothing where it is gone meanwhile."""
    try:
        return {"network": load(job.checkpoint).digest()}
    except UserError as error:
        if not (job.output / _START).is_file():
            raise
        print(f"--checkpoint is not what it was, a copy of it is gone on with: {lines(error)}", file=sys.stderr)
        return {}


def _start(job: Job, measured: Probe) -> str:
    """The file of the network that was given, with the statistics of these images."""
    from cion_jax.exporting.formats import FORMATS

    path = job.output / _START
    if not path.is_file():
        given = load(job.checkpoint)
        part = path.with_name("start.part")
        FORMATS["safetensors"].write(part, statistics.match(given, measured.pictures()))
        checksums.write(checksums.beside(path), {path.name: part})  # whoever reads the weights looks at it
        part.rename(path)
    return str(path)


def _scored(job: Job, number: int, checkpoint: str, measured: Probe, data: dict[str, Any] | None = None) -> Round:
    """A round's network, measured once."""
    path = _folder(job, number) / "score.json"
    if not path.is_file():
        backbone: Backbone = load(checkpoint)
        features_ND = measured.features(backbone)
        np.save(path.with_name("probe.npy"), features_ND)
        write_text(path, json.dumps(dataclasses.asdict(measured.score(features_ND)), indent=1) + "\n")
    with damage(path, "delete it; it is made again"):
        found = Round(number, checkpoint, Score(**json.loads(path.read_text("utf-8"))), data or {})
        if not 0 <= found.score.quality <= 1:
            raise ValueError(f"its quality is {found.score.quality}")
    print(
        f"round {number}: quality {found.score.quality:.4f}, other half of a track first in {found.score.rank1:.1%}",
        file=sys.stderr,
    )
    return found


def _identities(job: Job, number: int, checkpoint: str) -> dict[str, Any]:
    """Finds identities with a network; returns data_prep's metrics. What a certificate says of them belongs here."""
    folder = _folder(job, number) / "data"
    settings, cache = dataclasses.asdict(job.data), job.output / "cache"
    with same_input(job.output):
        return data_prep.run(job.source, job.input, folder, f"flax:{checkpoint}", cache=cache, **settings).metrics


@contextlib.contextmanager
def same_input(output: Path) -> Iterator[None]:
    """Raises UserError where a round's data set is of an input that has changed: its network is of the old one."""
    try:
        yield
    except InputChangedError as error:
        raise UserError(
            f"the input has changed since {output} was begun: {error.changes}; give another --output"
        ) from error


def _plan(job: Job, given: _Given) -> Plan:
    """Made once, when the first round's identities are known."""

    def make() -> Plan:
        if job.steps:
            return Plan(job.steps, job.rounds)
        config = _settings(job, 1, given, given.file, budget.TRIAL + 1)

        def train(config: RunConfig, folder: Path, on_row: Callable[[dict], None]) -> None:
            _train(config, folder, on_row=on_row)

        pace = given.clock.timed("trial", lambda: budget.paced(config, job.output / "trial", train))
        overhead = given.clock.seconds["identities 1"] + given.clock.seconds["score"]
        plan = budget.plan(job.minutes * 60 - sum(given.clock.seconds.values()), job.rounds, overhead, pace)
        print(plan.describe(config.data.batch_size), file=sys.stderr)
        return plan

    return budget.written(job.output / "plan.json", make)


def _settings(job: Job, number: int, given: _Given, checkpoint: str, steps: int) -> RunConfig:
    data = _folder(job, number) / "data"
    return recipes.settings(job.config, job.settings, data, given.network, checkpoint, steps)


def _train(
    config: RunConfig,
    folder: Path,
    asked_to_leave: Callable[[], bool] = lambda: False,
    on_row: Callable[[dict[str, float]], None] | None = None,
) -> None:
    task, start_from = weights_start.begun(config)
    if not loop.train(task, folder, start_from, asked_to_leave, on_row=on_row):
        raise LeftError


def _folder(job: Job, number: int) -> Path:
    folder = job.output / f"round{number}"
    folder.mkdir(exist_ok=True)
    return folder


def _run(job: Job, number: int) -> Path:
    return _folder(job, number) / "run"

"""The loop of every training run: wait for data, dispatch the step, look at the step before, save."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cion_jax.common import checksums, lock
from cion_jax.common.files import finished
from cion_jax.data.shards import Unreadable
from cion_jax.data.stream import Batch, Stream
from cion_jax.distributed import multihost, sharding
from cion_jax.training import goodput
from cion_jax.training.checkpoint import Checkpointer, check_resumable
from cion_jax.training.config import RunConfig
from cion_jax.training.goodput import Goodput
from cion_jax.training.metrics import ROWS, Metrics, Trace
from cion_jax.training.state import TrainState
from cion_jax.training.step import Trainer, make_trainer
from cion_jax.training.task import Beginning, Task

DIGESTED = ("config.json", ROWS, "labels/*.npz", "best/score.json")  # checkpoints have digests of every array
Start = Callable[[TrainState, TrainState], TrainState]
Score = Callable[[int], Mapping[str, float]]


def as_it_is(state: TrainState, shardings: TrainState) -> TrainState:
    """A fresh run starts from random weights."""
    del shardings
    return state


def train(
    task: Task,
    workdir: Path,
    start_from: Start = as_it_is,
    asked_to_leave: Callable[[], bool] = lambda: False,
    score: Score | None = None,
    on_row: Callable[[dict[str, float]], None] | None = None,
) -> bool:
    """Runs or resumes a training run.

    Args:
      task: what is learned, with the run's config.
      workdir: where it is written to.
      start_from: f(state before the first step, its shardings) -> the state that a fresh run starts from.
      asked_to_leave: whether the run is to end after the step at hand; one process's wish is enough.
      score: f(step of a complete checkpoint) -> a row about it; called after every `config.evaluate.every` epochs, in
        process 0.
      on_row: f(row) is called with every row of measurements when it has been written.

    Returns:
      Whether it is done; False where it was asked to leave, and its last finished step is saved.

    Raises:
      TrainingStopped: the loss is not finite.
      SaveError: a checkpoint could not be written.
      UnreadableError: too many images cannot be decoded.
      UserError: config, data, weights and workdir do not fit together.
    """
    clock = Goodput(workdir, writes=jax.process_index() == 0)
    config, stream = task.config, task.stream()
    multihost.agree(config=json.dumps(dataclasses.asdict(config)), data=stream.digest)
    end = min(config.train.steps or stream.total_steps, stream.total_steps)
    scored = _ends(stream.steps_per_epoch, config.evaluate.every) if score else set()
    mesh = sharding.make_mesh(config.mesh)
    trainer = make_trainer(task, mesh, stream.steps_per_epoch)

    multihost.share_folder(workdir)
    with (
        lock.held(workdir, "a training run") if jax.process_index() == 0 else contextlib.nullcontext(),
        Checkpointer(workdir, config.train.keep) as checkpointer,
        Trace(workdir / "profile", config.profile.steps) as trace,
    ):
        start, state, labels = _begin(task, checkpointer, trainer, stream.digest, start_from)
        clock.resume(start)
        _write_config(workdir, config)
        span = f"steps {start:,} to {end:,} of {stream.total_steps:,} on {dict(mesh.shape)}"
        multihost.say(f"{stream.describe()}, {span}")
        metrics = Metrics(workdir, task, start, end, on_row)
        steps = _Steps(
            task, workdir, mesh, trainer, checkpointer, trace, metrics, clock, end, asked_to_leave, score, scored
        )
        with jax.transfer_guard("disallow"):
            reached = steps.run(start, state, stream, labels)
        metrics.close()
        _write_digests(workdir)
        skipped = steps.skipped()
        clock.enter("saving")
    clock.write()
    left = f"left: step {reached:,} of {end:,} is saved, the same command goes on"
    multihost.say(f"{f'done: {end:,} steps' if reached >= end else left}; {skipped:,} images skipped")
    multihost.say(goodput.describe(workdir))
    return reached >= end


@dataclasses.dataclass
class _Steps:
    """The steps of a run, one after the other, and what happens between them.

    Attributes:
      workdir: of the run.
      clock: says where the time goes.
      end: number of the last step.
      asked_to_leave: as of `train`.
      score: as of `train`.
      scored: numbers of the steps that are scored.
    """

    task: Task
    workdir: Path
    mesh: jax.sharding.Mesh
    trainer: Trainer
    checkpointer: Checkpointer
    trace: Trace
    metrics: Metrics
    clock: Goodput
    end: int
    asked_to_leave: Callable[[], bool]
    score: Score | None
    scored: set[int]

    def __post_init__(self) -> None:
        self._unreadable = Unreadable(self.task.config.data.max_skipped)
        self._totals = multihost.Totals(self.mesh)
        self._compiled: set[Hashable] = set()
        self._saved = 0

    def run(self, start: int, state: TrainState, stream: Stream, labels: str) -> int:
        """Does the steps after `start`; returns the number of the last one, below `end` where asked to leave.

        `labels`: digest of those that step `start` was trained on.
        """
        rows = multihost.rows(sharding.BATCH, self.mesh, self.task.config.data.batch_size)
        data: Iterator[Batch] | None = None
        self.clock.enter("steps")
        self._saved = start
        for step in range(start, self.end):
            position = stream.at(step)
            if data is None or position.step_in_epoch == 0:
                before = stream
                state, stream = self._begin_epoch(step, state, stream, labels if position.step_in_epoch else None)
                data = data if data and stream is before else stream.batches(step, rows, self._unreadable)
            self.trace.reach(step + 1, self.metrics.flush)
            with self.clock.spent("waiting"), self.metrics.waiting():
                batch = next(data)
            state = self._step(step, state, batch, stream)
            if self._leaves_after(step + 1, state, stream):
                return step + 1
        return max(start, self.end)

    def skipped(self) -> int:
        """Images that were skipped, in all processes."""
        self._totals.read()
        return self._totals.seen.get("skipped", 0)

    def _begin_epoch(
        self, step: int, state: TrainState, stream: Stream, resumed: str | None
    ) -> tuple[TrainState, Stream]:
        """What the task measures is a row about the epoch's first step: a run that goes on before it writes it anew."""
        self.metrics.flush()
        at = Beginning(stream.at(step).epoch, self.mesh, self.workdir, resumed)
        with jax.transfer_guard("allow"), self.metrics.paused(), self.clock.spent("between epochs"):
            begun = self.task.begin_epoch(at, state, stream)
        if begun.row:
            self.metrics.note(step + 1, begun.row)
        return begun.state, begun.stream

    def _step(self, step: int, state: TrainState, batch: Batch, stream: Stream) -> TrainState:
        """Dispatches a step; its measurements are looked at one step late."""
        with jax.transfer_guard("allow"):  # all that a step needs of the host
            on_devices = sharding.put_batch(batch, self.mesh, self.task.fields)
            wishes = {"asked_to_leave": self.asked_to_leave(), "to_save": self._late()}
            said = self._totals.add({"skipped": self._unreadable.skipped} | wishes)
        static = self.task.static(stream, step)
        # A program is compiled when it is called first; that this is a step, too, is little beside it.
        new = self.clock.spent("compiling") if static not in self._compiled else contextlib.nullcontext()
        self._compiled.add(static)
        with jax.profiler.StepTraceAnnotation("train", step_num=step + 1), new:
            state, measured = self.trainer.step(state, on_devices, static)
        self.metrics.add(step + 1, measured | {"skipped": said["skipped"]})
        return state

    def _leaves_after(self, reached: int, state: TrainState, stream: Stream) -> bool:
        """Saves and scores the state after a step where that is due; whether the run was asked to leave."""
        leaving = self._totals.seen.get("asked_to_leave", 0) > 0
        scored = reached in self.scored
        self.checkpointer.check()
        regular = reached % self.task.config.train.checkpoint_every == 0
        if regular or reached == self.end or leaving or scored or self._told_to_save(reached):
            self._save(reached, state, stream)
        if self.score and scored and not leaving:
            with self.clock.spent("saving"):
                self.checkpointer.wait()
            with jax.transfer_guard("allow"), self.metrics.paused(), self.clock.spent("evaluating"):
                if jax.process_index() == 0:
                    self.metrics.note(reached, self.score(reached))
        self.clock.beat()
        return leaving

    def _save(self, reached: int, state: TrainState, stream: Stream) -> None:
        # Only a checkpoint waits for its own step, so that nothing is saved whose loss is not finite.
        self.metrics.flush()
        with self.clock.spent("saving"):
            run = record(self.task, reached, stream.digest, stream.labels)
            self.checkpointer.save(reached, state, self.task.served, run)
        self.clock.saved(reached)
        self._saved = reached

    def _late(self) -> bool:
        """Whether process 0's clock asks for a checkpoint: one of them must say so, or they would not agree."""
        minutes = self.task.config.train.checkpoint_minutes
        return jax.process_index() == 0 and minutes > 0 and self.clock.since_saved() > 60 * minutes

    def _told_to_save(self, reached: int) -> bool:
        """Whether that was asked for, after the last checkpoint: a wish is heard one step late."""
        return self._totals.seen.get("to_save", 0) > 0 and reached > self._saved + 1


def _write_config(workdir: Path, config: RunConfig) -> None:
    if jax.process_index() == 0:
        (workdir / checksums.SUMS).unlink(missing_ok=True)  # of files that will change
        with finished(workdir / "config.json") as path:
            path.write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")


def _write_digests(workdir: Path) -> None:
    """Digests of the files that have no checksum of their own, as this process leaves them."""
    if jax.process_index() == 0:
        files = [path for pattern in DIGESTED for path in sorted(workdir.glob(pattern))]
        checksums.write(workdir / checksums.SUMS, {path.relative_to(workdir).as_posix(): path for path in files})


def _ends(steps_per_epoch: Sequence[int], every: int) -> set[int]:
    """How many steps are done after every so many epochs."""
    return set(itertools.islice(itertools.accumulate(steps_per_epoch), every - 1, None, every)) if every else set()


def _begin(
    task: Task, checkpointer: Checkpointer, trainer: Trainer, digest: str, start_from: Start
) -> tuple[int, TrainState, str]:
    """(steps done, state after them, digest of the labels that the last was trained on): of the newest checkpoint, or
    fresh."""
    start = multihost.of_first(checkpointer.latest() or 0)
    if start:
        run = checkpointer.run(start)
        check_resumable(task.config, run, digest)
        return start, checkpointer.restore(run, trainer.like, task.served), run.get("labels", "")
    return 0, start_from(trainer.init(), trainer.shardings), ""


def record(task: Task, step: int, digest: str, labels: str = "") -> dict[str, Any]:
    """The `run` item of a checkpoint."""
    return {
        "task": task.config.task,
        "config": dataclasses.asdict(task.config),
        "position": {"step": step, "index": digest},
        "labels": labels,
        "preprocessing": dataclasses.asdict(task.preprocessing),
    }

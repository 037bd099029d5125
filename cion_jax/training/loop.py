"""The loop of every training run: wait for data, dispatch the step, look at the step before, save."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cion_jax.common import lock
from cion_jax.common.files import finished
from cion_jax.data.shards import Unreadable
from cion_jax.data.stream import Stream
from cion_jax.distributed import multihost, sharding
from cion_jax.training.checkpoint import Checkpointer, check_resumable
from cion_jax.training.metrics import Metrics, Trace
from cion_jax.training.state import TrainState
from cion_jax.training.step import Trainer, make_trainer
from cion_jax.training.task import Beginning, Begun, Task

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
    config = task.config
    stream = task.stream()
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
        start, state, resumed = _begin(task, checkpointer, trainer, stream.digest, start_from)
        if jax.process_index() == 0:
            with finished(workdir / "config.json") as path:
                path.write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
        multihost.say(
            f"{stream.describe()}, steps {start:,} to {end:,} of {stream.total_steps:,} on {dict(mesh.shape)}"
        )
        unreadable = Unreadable(config.data.max_skipped)
        rows = multihost.rows(sharding.BATCH, mesh, config.data.batch_size)
        metrics, totals, data, reached = Metrics(workdir, task, start, end, on_row), multihost.Totals(mesh), None, start
        with jax.transfer_guard("disallow"):
            for step in range(start, end):
                position = stream.at(step)
                if data is None or position.step_in_epoch == 0:
                    at = Beginning(position.epoch, mesh, workdir, resumed if position.step_in_epoch else None)
                    begun = _begin_epoch(task, at, state, stream, metrics, step)
                    data = data if data and begun.stream is stream else begun.stream.batches(step, rows, unreadable)
                    state, stream = begun.state, begun.stream
                # Only a checkpoint waits for its own step, so that nothing is saved whose loss is not finite.
                trace.reach(step + 1, metrics.flush)
                with metrics.waiting():
                    batch = next(data)
                with jax.transfer_guard("allow"):  # all that a step needs of the host
                    on_devices = sharding.put_batch(batch, mesh, task.fields)
                    said = totals.add({"skipped": unreadable.skipped, "asked_to_leave": asked_to_leave()})
                with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                    state, measured = trainer.step(state, on_devices, task.static(stream, step))
                reached = step + 1
                metrics.add(reached, measured | {"skipped": said["skipped"]})
                leaving = totals.seen.get("asked_to_leave", 0) > 0
                checkpointer.check()
                if reached % config.train.checkpoint_every == 0 or reached == end or leaving or reached in scored:
                    metrics.flush()
                    checkpointer.save(reached, state, task.served, record(task, reached, stream.digest, stream.labels))
                if leaving:
                    break
                if score and reached in scored:
                    checkpointer.wait()
                    with jax.transfer_guard("allow"), metrics.paused():
                        if jax.process_index() == 0:
                            metrics.note(reached, score(reached))
        metrics.close()
        totals.read()
    skipped = f"{totals.seen.get('skipped', 0):,} images skipped"
    if reached < end:
        multihost.say(f"left: step {reached:,} of {end:,} is saved, the same command goes on; {skipped}")
    else:
        multihost.say(f"done: {end:,} steps; {skipped}")
    return reached >= end


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
        return start, checkpointer.restore(start, trainer.like, task.served), run.get("labels", "")
    return 0, start_from(trainer.init(), trainer.shardings), ""


def _begin_epoch(task: Task, at: Beginning, state: TrainState, stream: Stream, metrics: Metrics, step: int) -> Begun:
    """The task's; what it measured is a row about the epoch's first step, so that a run that goes on from before that
    step writes it anew."""
    metrics.flush()
    with jax.transfer_guard("allow"), metrics.paused():
        begun = task.begin_epoch(at, state, stream)
    if begun.row:
        metrics.note(step + 1, begun.row)
    return begun


def record(task: Task, step: int, digest: str, labels: str = "") -> dict[str, Any]:
    """The `run` item of a checkpoint."""
    return {
        "task": task.config.task,
        "config": dataclasses.asdict(task.config),
        "position": {"step": step, "index": digest},
        "labels": labels,
        "preprocessing": dataclasses.asdict(task.preprocessing),
    }

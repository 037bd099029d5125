"""Pre-trains a backbone: `python -m cion_jax.train --config=configs/vit_b.py --workdir=W --config.data.path=OUT`.

A workdir that already holds checkpoints of the same config is resumed, exactly. Written there: `config.json`,
`metrics.jsonl`, `tensorboard/`, `checkpoints/`, and `profile/` where it is asked for. On several hosts every process
runs the same command (`cion_jax.distributed.multihost`), and all see the same workdir.

Exit status: 0 done; 1 training had to stop; 2 it could not start; 75 asked to leave by SIGTERM or SIGINT, and saved;
76 another process is gone. After 75 and 76 the same command goes on.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags

from cion_jax.common import cli
from cion_jax.common.errors import UserError
from cion_jax.data.groups import Timeline, Units
from cion_jax.data.pipeline import batches
from cion_jax.data.shards import ShardReader, Unreadable, UnreadableError
from cion_jax.distributed import cpu_allocator, multihost, sharding
from cion_jax.distributed.preemption import LEFT, Signals
from cion_jax.training.checkpoint import Checkpointer, SaveError, check_resumable
from cion_jax.training.config import Config
from cion_jax.training.metrics import Metrics, Trace, TrainingStopped
from cion_jax.training.step import make_trainer
from cion_jax.weights import load

STOPS = (SaveError, UnreadableError)


def train(config: Config, workdir: Path, asked_to_leave: Callable[[], bool] = lambda: False) -> bool:
    """Runs or resumes a pre-training run.

    Args:
      config: of the run.
      workdir: where it is written to.
      asked_to_leave: whether the run is to end after the step at hand; one process's wish is enough.

    Returns:
      Whether it is done; False where it was asked to leave, and its last finished step is saved.

    Raises:
      TrainingStopped: the loss is not finite.
      SaveError: a checkpoint could not be written.
      UnreadableError: too many images cannot be decoded.
      CheckpointError, ShardError, PlanError, ConfigError: config, data and workdir do not fit
        together.
      WeightsError, TorchFileError: nothing in `init_from` to start from.
    """
    reader = ShardReader(config.data.path)
    digest = reader.index.digest()
    multihost.agree(config=json.dumps(dataclasses.asdict(config)), data=digest)
    units = Units.of(reader.index, config.identity)
    timeline = Timeline(units, config.train.epochs, config.data.batch_size, config.curriculum)
    end = min(config.train.steps or timeline.total_steps, timeline.total_steps)
    mesh = sharding.make_mesh(config.mesh)
    trainer = make_trainer(config, mesh, timeline.steps_per_epoch)

    multihost.share_folder(workdir)
    with (
        Checkpointer(workdir, config.train.keep) as checkpointer,
        Trace(workdir / "profile", config.profile.steps) as trace,
    ):
        start = multihost.of_first(checkpointer.latest() or 0)
        if start:
            check_resumable(config, checkpointer.run(start), digest)
            state = checkpointer.restore(start, trainer.like)
        else:
            state = trainer.init()
            if config.init_from:
                state = load.start(state, config.init_from, config.init_ignore, trainer.shardings)
        if jax.process_index() == 0:
            (workdir / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
        multihost.say(
            f"{config.model.name}: {len(reader):,} images of {len(units):,} units ({config.identity}), steps {start:,} "
            f"to {end:,} of {timeline.total_steps:,} on mesh {dict(mesh.shape)}"
        )
        unreadable = Unreadable(config.data.max_skipped)
        data = batches(
            reader,
            units,
            timeline,
            seed=config.seed,
            unreadable=unreadable,
            start_step=start,
            canvas=config.data.canvas,
            rows=multihost.rows(sharding.BATCH, mesh, config.data.batch_size),
            threads=config.data.threads,
        )
        metrics = Metrics(workdir, config, start, end)
        reached = start
        with jax.transfer_guard("disallow"):
            for step in range(start, end):
                # Wait for data, dispatch the step, look at the step before. Only a checkpoint waits for its own step,
                # so that nothing is saved whose loss is not finite.
                trace.reach(step + 1, metrics.flush)
                with metrics.waiting():
                    batch = next(data)
                with jax.transfer_guard("allow"):  # all that a step needs of the host
                    images = sharding.put_batch(batch, mesh)
                    said = multihost.totals({"skipped": unreadable.skipped, "asked_to_leave": asked_to_leave()}, mesh)
                with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                    state, measured = trainer.step(state, images, timeline.at(step).k)
                reached = step + 1
                metrics.add(reached, measured | said)
                leaving = metrics.seen.get("asked_to_leave", 0) > 0
                checkpointer.check()
                if reached % config.train.checkpoint_every == 0 or reached == end or leaving:
                    metrics.flush()
                    checkpointer.save(reached, state, config, {"step": reached, "index": digest})
                if leaving:
                    break
        metrics.close()
    skipped = f"{metrics.seen.get('skipped', 0):,.0f} images skipped"
    if reached < end:
        multihost.say(f"left: step {reached:,} of {end:,} is saved, the same command goes on; {skipped}")
    else:
        multihost.say(f"done: {end:,} steps; {skipped}")
    return reached >= end


def main(_) -> int:
    """Entry point; the exit status is explained above."""
    config = SETTINGS()
    cpu_allocator.one_step_at_a_time()
    try:
        # A checkpoint may fail to be saved because another process is gone.
        with multihost.joined(PLACE(), own=(UserError, UnreadableError)), Signals(config.train.grace) as signals:
            cpu_allocator.keep_freed()
            try:
                finished = train(config, Path(WORKDIR.value), lambda: signals.asked)
            except TrainingStopped as stop:  # in all processes at the same step
                multihost.say(f"stopped: {stop}")
                return 1
    except STOPS as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"stopped: {error}; make room and give the same command again", file=sys.stderr)
        return 1
    return 0 if finished else LEFT


if __name__ == "__main__":
    SETTINGS = cli.define_config(Config)
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run: metrics and checkpoints.", required=True)
    PLACE = multihost.define_flags()
    cli.run(main, leave=multihost.leave)

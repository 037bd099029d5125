"""Pre-trains a backbone: `python -m cion_jax.train --config=configs/vit_b.py --workdir=W --config.data.path=OUT`.

A workdir that already holds checkpoints of the same config is resumed, exactly. Written there: `config.json`,
`metrics.jsonl`, `tensorboard/`, `checkpoints/`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import jax
from absl import flags

from cion_jax import cli, optimizer, pretrained, sharding
from cion_jax import state as states
from cion_jax.checkpoint import Checkpointer, check_resumable
from cion_jax.config import Config
from cion_jax.data.groups import PlanError, Timeline, Units
from cion_jax.data.pipeline import batches
from cion_jax.data.shards import ShardError, ShardReader, Unreadable
from cion_jax.metrics import Metrics, TrainingStopped
from cion_jax.schedules import Schedules
from cion_jax.step import compile_step


def train(config: Config, workdir: Path) -> None:
    """Runs or resumes a pre-training run.

    Raises:
      TrainingStopped: the loss is not finite.
      CheckpointError, ShardError, PlanError, ConfigError, FileNotFoundError: config, data and workdir do not fit
        together.
      WeightsError, TorchFileError: nothing in `init_from` to start from.
    """
    reader = ShardReader(config.data.path)
    units = Units.of(reader.index, config.identity)
    timeline = Timeline(units, config.train.epochs, config.data.batch_size, config.curriculum)
    end = min(config.train.steps or timeline.total_steps, timeline.total_steps)
    mesh = sharding.make_mesh(config.mesh)
    tx = optimizer.build()
    like = jax.eval_shape(lambda: states.init(config, tx))
    shardings = sharding.state_shardings(like, mesh)
    step_fn = compile_step(
        shardings,
        config=config,
        graphdef=states.graph(config),
        optimizer=tx,
        schedules=Schedules.of(config.optimizer, config.data.batch_size, timeline.steps_per_epoch),
        mesh=mesh,
    )
    digest = reader.index.digest()

    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpointer(workdir, config.train.keep) as checkpointer:
        start = checkpointer.latest() or 0
        if start:
            check_resumable(config, checkpointer.run(start), digest)
            state = checkpointer.restore(start, sharding.abstract(like, shardings))
        else:
            state = jax.jit(lambda: states.init(config, tx), out_shardings=shardings)()
            if config.init_from:
                state = pretrained.start(state, config.init_from, config.init_ignore, shardings)
        (workdir / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=1) + "\n")
        print(
            f"{config.model.name}: {len(reader):,} images of {len(units):,} units ({config.identity}), steps {start:,} "
            f"to {end:,} of {timeline.total_steps:,} on mesh {dict(mesh.shape)}",
            file=sys.stderr,
        )
        data = batches(
            reader,
            units,
            timeline,
            seed=config.seed,
            unreadable=Unreadable(config.data.max_skipped),
            start_step=start,
            canvas=config.data.canvas,
            process=(jax.process_index(), jax.process_count()),
            threads=config.data.threads,
        )
        metrics = Metrics(workdir, config, start, end)
        for step in range(start, end):
            # Wait for data, dispatch the step, look at the step before. Only a checkpoint waits for its own step, so
            # that nothing is saved whose loss is not finite.
            with metrics.waiting():
                batch = next(data)
            state, measured = step_fn(state, sharding.put_batch(batch, mesh), timeline.at(step).k)
            metrics.add(step + 1, measured)
            if (step + 1) % config.train.checkpoint_every == 0 or step + 1 == end:
                metrics.flush()
                checkpointer.save(step + 1, state, config, {"step": step + 1, "index": digest})
        metrics.close()


def main(_) -> int:
    """Entry point: exit status 1 where training had to stop, 2 where it could not start."""
    try:
        train(SETTINGS(), Path(WORKDIR.value))
    except TrainingStopped as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    SETTINGS = cli.define_config(Config)
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run: metrics and checkpoints.", required=True)
    cli.run(main, mistakes=(ShardError, PlanError, *pretrained.MISTAKES))

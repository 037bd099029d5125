"""Trains a backbone: `python -m cion_jax.train --config=configs/vit_b.py --workdir=W --config.data.path=OUT`.

A workdir that already holds checkpoints of the same config is resumed, exactly. Written there: `config.json`,
`metrics.jsonl`, `tensorboard/`, `checkpoints/`, and `profile/` where it is asked for. On several hosts every process
runs the same command (`cion_jax.distributed.multihost`), and all see the same workdir.

Exit status: 0 done; 1 training had to stop; 2 it could not start; 75 asked to leave by SIGTERM or SIGINT, and saved;
76 another process is gone. After 75 and 76 the same command goes on.
"""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from cion_jax import scoring
from cion_jax.common import cli
from cion_jax.common.errors import UserError
from cion_jax.common.paths import local_path
from cion_jax.data.shards import UnreadableError
from cion_jax.distributed import cpu_allocator, multihost
from cion_jax.distributed.preemption import LEFT, Signals
from cion_jax.tasks import schemas
from cion_jax.training import loop
from cion_jax.training.checkpoint import SaveError
from cion_jax.training.config import RunConfig
from cion_jax.training.metrics import TrainingStopped
from cion_jax.weights import start

STOPS = (SaveError, UnreadableError)


def train(
    config: RunConfig,
    workdir: Path,
    asked_to_leave: Callable[[], bool] = lambda: False,
    on_row: Callable[[dict[str, float]], None] | None = None,
) -> bool:
    """Runs or resumes the run of a config; arguments, result and errors as of `training.loop.train`."""
    task, start_from = start.begun(config)
    score = scoring.scorer(task.config, workdir) if config.evaluate.every else None
    return loop.train(task, workdir, start_from, asked_to_leave, score, on_row)


def main(config: RunConfig, workdir: Path, place: multihost.Place | None = None) -> int:
    """Trains as one process of a run; the exit status is explained above."""
    cpu_allocator.one_step_at_a_time()
    try:
        # A checkpoint may fail to be saved because another process is gone.
        with (
            multihost.joined(place, own=(UserError,)),
            Signals(config.train.grace) as signals,
        ):
            cpu_allocator.keep_freed()
            try:
                done = train(config, workdir, lambda: signals.asked)
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
    return 0 if done else LEFT


def define_flags() -> Callable[[Sequence[str]], int]:
    """Defines what the command takes; the function returned runs it."""
    settings = cli.define_config(schemas())
    workdir = flags.DEFINE_string("workdir", None, "Folder of this run: metrics and checkpoints.", required=True)
    place = multihost.define_flags()
    return functools.partial(_as_flags_say, settings, lambda: local_path(workdir.value, "--workdir"), place)


def _as_flags_say(settings: Callable, workdir: Callable, place: Callable, _: Sequence[str]) -> int:
    return main(settings(), workdir(), place())


def run_main() -> None:
    """The command `cion-train`."""
    cli.run(define_flags(), leave=multihost.leave)


if __name__ == "__main__":
    run_main()

"""What the digests of a checkpoint cost: their share of a save's time, for states of the sizes of real runs.

    python -m benchmarks.checkpoint [--backbone=resnet50] [--repeats=5]

A save is the time until the checkpoint has its name; the digests are counted in it, and measured alone as well.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from benchmarks import common
from cion_jax.common import typed_config
from cion_jax.tasks.distill.config import Config
from cion_jax.tasks.distill.task import Distill
from cion_jax.training import checkpoint, digests
from cion_jax.training.loop import record
from cion_jax.training.state import TrainState
from cion_jax.training.step import init_state

BACKBONE = flags.DEFINE_list("backbone", ["resnet50", "vit_base"], "Backbones, one after another.")
REPEATS = flags.DEFINE_integer("repeats", 5, "Saves of each; medians are shown.")


def main(_: Sequence[str]) -> None:
    """Prints a row for each backbone."""
    logging.set_verbosity(logging.WARNING)
    common.header("checkpoint")
    common.table(["backbone", "numbers", "a save", "its digests", "share"], map(row, BACKBONE.value))


def row(name: str) -> tuple[str, ...]:
    """Medians for one backbone."""
    task = Distill(typed_config.freeze(Config, {"model": {"name": name}, "data": {"path": "none"}}))
    state = filled(task)
    rows = [measure(task, state) for _ in range(REPEATS.value)]
    save, alone = (statistics.median(column) for column in zip(*rows, strict=True))
    count = sum(leaf.size for leaf in jax.tree.leaves(state))
    return name, f"{count / 1e6:.1f} M", f"{save:.2f} s", f"{alone:.3f} s", f"{alone / save:.2%}"


def filled(task: Any) -> TrainState:
    """A state of random numbers, which do not compress."""
    like = jax.eval_shape(lambda: init_state(task))
    key = jax.random.key(0)

    def leaf(x: Any) -> jax.Array:
        if jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            return jax.random.normal(key, x.shape, x.dtype)
        return jax.numpy.zeros(x.shape, x.dtype)

    return jax.block_until_ready(jax.tree.map(leaf, like))


def measure(task: Any, state: TrainState) -> tuple[float, float]:
    """(seconds of one save from its beginning to its end, seconds of its digests alone)."""
    flat = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    began = time.perf_counter()
    digests.of(flat)
    alone = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with checkpoint.Checkpointer(Path(folder)) as checkpointer:
            checkpointer.save(1, state, task.served, record(task, 1, "none"))
        return time.perf_counter() - began, alone


if __name__ == "__main__":
    app.run(main)

"""Scores of a run while it trains: each of its checkpoints that is due is evaluated, and the best one kept."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path

import jax

from cion_jax.common.files import read_regular
from cion_jax.common.paths import local_path
from cion_jax.common.printable import printable
from cion_jax.evaluate import evaluate
from cion_jax.reid import benchmarks
from cion_jax.reid.benchmarks import Benchmark
from cion_jax.training.checkpoint import FOLDER
from cion_jax.training.config import RunConfig
from cion_jax.training.loop import Score
from cion_jax.weights.load import load

BEST, SCORE = "best", "score.json"
_ROW = ("mAP", "rank1")


def scorer(config: RunConfig, workdir: Path) -> Score:
    """f(step of a complete checkpoint of the run in `workdir`) -> {"mAP", "rank1"}, shares between 0 and 1.

    All devices of the process that calls it share the work; other processes of the run wait in their next step.

    The best so far by mAP is copied to `WORKDIR/best`, which `--checkpoint` takes like a run. It is chosen on the
    benchmark itself, so it is for looking at; what is compared with others is the last checkpoint.

    Raises:
      BenchmarkError: no such benchmark there; before the training and not after its first epochs.
    """
    benchmark = benchmarks.load(
        config.evaluate.benchmark, local_path(config.evaluate.path or config.data.path, "config.evaluate.path")
    )
    return functools.partial(_score, workdir, benchmark)


def _score(workdir: Path, benchmark: Benchmark, step: int) -> dict[str, float]:
    result = evaluate(load(str(workdir / FOLDER / str(step))).on(jax.local_devices()), benchmark)
    row = {name: result[name] for name in _ROW}
    kept = workdir / BEST / SCORE
    if _best(kept) < row["mAP"]:
        _keep(workdir, step, row)
    return row


def _best(kept: Path) -> float:
    """mAP of the best checkpoint so far, none where there is none or its file is damaged."""
    try:
        return float(json.loads(read_regular(kept))["mAP"]) if kept.is_file() else -1.0
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        print(f"{kept} is damaged ({printable(error)}): the next checkpoint takes its place", file=sys.stderr)
        return -1.0


def _keep(workdir: Path, step: int, row: dict[str, float]) -> None:
    """Puts a checkpoint in the place of the best so far; at no time is half of one there."""
    new, old = workdir / f"{BEST}.new", workdir / BEST
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(workdir / FOLDER / str(step), new / FOLDER / str(step))
    (new / SCORE).write_text(json.dumps({"step": step, **row}) + "\n")
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)

"""A training run's folder from end to end: every array of every checkpoint, the rows of measurements, the config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from cion_jax.common import checksums
from cion_jax.common.errors import UserError
from cion_jax.common.files import read_regular
from cion_jax.common.finite import not_finite
from cion_jax.common.paths import path_name
from cion_jax.common.printable import printable, some
from cion_jax.common.progress import progress
from cion_jax.common.typed_config import freeze
from cion_jax.tasks import TASKS
from cion_jax.training import goodput
from cion_jax.training.checkpoint import FOLDER, Checkpointer, on_one_device
from cion_jax.training.metrics import NOTES, ROWS, step_of
from cion_jax.training.step import init_state
from cion_jax.weights.load import task_of

CONFIG_FILE = "config.json"


def is_run(path: Path) -> bool:
    """Whether a path is a run's folder."""
    return path.is_dir() and any((path / name).exists() for name in (FOLDER, ROWS))


def verify_run(workdir: Path) -> tuple[str, list[str]]:
    """(what was looked at, what is damaged: a line each)."""
    present = [name for name in (CONFIG_FILE, ROWS) if (workdir / name).exists()]
    sums = workdir / checksums.SUMS
    damage = [*_config(workdir), *_rows(workdir), *checksums.damage(sums, present)]
    if not (workdir / FOLDER).is_dir():
        return "it has no checkpoints", [*damage, f"{workdir / FOLDER} is no folder"]
    with Checkpointer(workdir, read_only=True) as checkpointer:
        steps, old = checkpointer.steps(), 0
        for step in progress(steps, "checkpoints", total=len(steps)):
            try:
                run = checkpointer.run(step)
                bad = _checkpoint(checkpointer, run)
                old += run["digests"] is None
            except UserError as error:
                damage.append(str(error))
                continue
            if bad:
                damage.append(f"checkpoint {step}: {len(bad)} arrays are not finite: {some(bad)}")
    if not steps:
        damage.append(f"there is no complete checkpoint in {workdir / FOLDER}")
    undigested = f", {old} of them without digests: other numbers would not show" if old else ""
    times = goodput.describe(workdir)
    told = f"{undigested}{checksums.told(sums, present)}{'; ' * bool(times)}{times}"
    return f"{len(steps)} checkpoints{told}", damage


def _checkpoint(checkpointer: Checkpointer, run: Mapping[str, Any]) -> list[str]:
    """Names of the arrays that are not finite; raises CheckpointError where something is damaged."""
    task = task_of(run)
    like = on_one_device(jax.eval_shape(lambda: init_state(task)))
    state = checkpointer.restore(run, like, task.served)
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return not_finite({path_name(path): leaf for path, leaf in leaves})


def _config(workdir: Path) -> list[str]:
    path = workdir / CONFIG_FILE
    try:
        settings = json.loads(read_regular(path))
        freeze(TASKS[settings["task"]].schema, settings, path.name, old_names=True)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        return [f"{path} is damaged ({printable(error)}); nothing reads it, and resuming writes it again"]
    return []


def _rows(workdir: Path) -> list[str]:
    path = workdir / ROWS
    try:
        *lines, rest = read_regular(path).split(b"\n")
    except OSError as error:
        return [f"{path}: {error}"]
    steps = [step_of(line) for line in lines]
    damage = [f"{path}:{number}: no row of measurements" for number, step in enumerate(steps, 1) if step is None]
    # A note is a row of its own, of a step that may have been measured.
    measured = [not any(name in line for name in NOTES) for line in lines]
    known = [step for step, row in zip(steps, measured, strict=True) if step is not None and row]
    if known != sorted(set(known)):
        damage.append(f"{path}: its steps do not rise")
    return [*damage, *([f"{path}: its last line is cut short"] if rest else [])]

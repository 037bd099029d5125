"""What a training run can learn, by the name that `config.task` gives: a folder a task."""

from __future__ import annotations

from typing import Any

from cion_jax.common.registry import Registry

# Classes as `training.task.Task` describes them, with their settings' dataclass as `schema`.
TASKS: Registry[Any] = Registry("task", "cion_jax.tasks", "tasks")


def schemas() -> dict[str, type]:
    """The settings' dataclass of every task."""
    return {name: TASKS[name].schema for name in TASKS}

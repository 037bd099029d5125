"""What a training run can learn, by the name that `config.task` gives: a folder a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections

from cion_jax.common import typed_config
from cion_jax.common.registry import Registry

# Classes as `training.task.Task` describes them, with their settings' dataclass as `schema`.
TASKS: Registry[Any] = Registry("task", "cion_jax.tasks", "tasks")


def schemas() -> dict[str, type]:
    """The settings' dataclass of every task."""
    return {name: TASKS[name].schema for name in TASKS}


def freeze(settings: ml_collections.ConfigDict, changes: Mapping[str, Any]) -> Any:
    """The frozen settings of a config file, changed by dotted names; ConfigError where one does not exist or fit."""
    schema = TASKS[settings.get("task", "")].schema
    changed = ml_collections.ConfigDict(settings)
    for name, value in changes.items():
        *groups, last = name.split(".")
        at: Any = changed
        for group in groups:
            if group not in at:
                raise typed_config.ConfigError(typed_config.unknown(f"config.{name}", group, at))
            at = at[group]
        with at.unlocked(), at.ignore_type():  # names and types are checked below, with messages of our own
            at[last] = value
    return typed_config.freeze(schema, changed)

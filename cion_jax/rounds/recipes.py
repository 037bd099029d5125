"""The settings of a round's training run: a recipe, made to fit the network, the identities and the time."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from cion_jax.common import packaged_configs
from cion_jax.common.errors import UserError
from cion_jax.common.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from cion_jax.data.groups import Timeline, Units
from cion_jax.data.records import Index
from cion_jax.tasks import freeze
from cion_jax.training.config import RunConfig
from cion_jax.weights.backbone import Backbone

EPOCHS = 20  # of a round: parts of its steps, from one of which to the next the learning rate changes


def settings(
    recipe: str, changes: Mapping[str, Any], data: Path, given: Backbone, checkpoint: str, steps: int
) -> RunConfig:
    """Settings of a run.

    Args:
      recipe: a config file or the name of a packaged one, with its argument behind a colon.
      changes: to it, by dotted name.
      data: identity shards of the round.
      given: the network that is adapted.
      checkpoint: whose weights the run starts from.
      steps: of the run; learning rates fall until then.

    Raises:
      UserError: the recipe does not fit the network or the identities.
    """
    config, index = unfitted(recipe, changes, data, given, checkpoint), Index.load(data)
    schedule = length(config, index, steps)
    fitting: dict[str, Any] = {"steps_per_epoch": schedule["data.steps_per_epoch"]}
    if hasattr(config.data, "instances"):
        k, devices = config.data.instances, jax.device_count()
        groups = max(index.identities // devices, 1) * devices  # no more than there are people
        fitting["batch_size"] = min(config.data.batch_size, groups * k)
        if getattr(config.data, "turns", False) and not index.take_turns:
            print("no identity found has several tracklets of images: without config.data.turns", file=sys.stderr)
            fitting["turns"] = False
    train = dataclasses.replace(config.train, epochs=schedule["train.epochs"], steps=steps)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fitting), train=train)


def length(config: Any, index: Index, steps: int) -> dict[str, int]:
    """Settings, by dotted name, by which the schedules end with the steps, or less than one for each epoch later.

    Epochs of a distillation, in which its warm-up and curriculum are said, are as many as the passes that are begun.

    Args:
      config: settings of a run.
      index: of its images.
      steps: of the run, 1 or more.

    Raises:
      PlanError: there are too few images for a batch.
    """
    epochs = min(EPOCHS, steps) if hasattr(config.data, "instances") else _passes(config, index, steps)
    return {"train.epochs": epochs, "data.steps_per_epoch": -(-steps // epochs)}


def _passes(config: Any, index: Index, steps: int) -> int:
    """How many passes through the data a distillation begins."""
    units = Units.of(index, config.identity)
    laid_out = (Timeline(units, n, config.data.batch_size, config.curriculum) for n in itertools.count(1))
    return next(len(each.steps_per_epoch) for each in laid_out if each.total_steps >= steps)


def loaded(recipe: str) -> ml_collections.ConfigDict:
    """A recipe as it is; UserError where there is none of that name."""
    name, _, argument = recipe.partition(":")
    return packaged_configs.load(name, *filter(None, [argument]))


def unfitted(recipe: str, changes: Mapping[str, Any], data: Path, given: Backbone, checkpoint: str = "") -> RunConfig:
    """The same before the identities are known, which `data` need not hold yet; UserError as of `settings`."""
    values = loaded(recipe)
    own = {"data.path": str(data), "init_from": checkpoint, "model.name": given.name, **_images(values, given)}
    return freeze(values, {**own, **changes})


def _images(values: ml_collections.ConfigDict, given: Backbone) -> dict[str, Any]:
    """Settings by which training images are of the size and the values that the given network takes."""
    of, sizes = given.preprocessing, ("height", "width")
    if "image" in values:
        own = {f"image.{part}": getattr(of, part) for part in ("mean", "std")}
        return own | {f"image.{part}": size for part, size in zip(sizes, of.size, strict=True)}
    if (of.mean, of.std) != (IMAGENET_MEAN, IMAGENET_STD):
        raise UserError(
            f"a recipe of this task has images of ImageNet's mean and deviation, the network {of}; give adapt"
        )
    views = ("views.global_1", "views.global_2")
    return {f"{view}.{part}": size for view in views for part, size in zip(sizes, of.size, strict=True)}

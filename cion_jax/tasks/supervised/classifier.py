"""A classifier that begins with what the network knows: the means of people's features."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cion_jax.data.stream import Reader
from cion_jax.distributed import multihost
from cion_jax.neighbors import cosine
from cion_jax.training.state import TrainState

_SILENT = 1e-3  # share of the greatest deviation of a number of features below which one counts as no larger


def from_means(task: Any, state: TrainState, reader: Reader, mesh: Mesh) -> TrainState:
    """A fresh state whose classifier has a person's mean feature, behind the neck, as that person's weights.

    Args:
      task: of fine-tuning, with a BNNeck.
      state: of the run, with the weights that it starts from.
      reader: the people.
      mesh: of the run.
    """
    if not task.config.init_from:
        multihost.say(
            "warning: config.model.classifier=means of a network with random weights, which tell nobody apart; give "
            "config.init_from, or config.model.classifier=random"
        )
    identity = reader.index.identity
    numbers = some_of_each(identity, task.config.data.instances)
    features = task.features(task.serve_as(state.trained, "before"), reader, numbers, mesh, "people's means")

    def kernel() -> np.ndarray:
        found, right = means(features, identity[numbers])
        multihost.say(
            f"the classifier begins with {len(found):,} people's means, nearest to {right:.0%} of their images"
        )
        return found.T

    params = state.trained["params"]
    old = params["classifier"]["kernel"]
    whole = multihost.of_first_array(kernel, old.shape, np.float32)
    new = jax.make_array_from_callback(old.shape, old.sharding, whole.__getitem__)
    return dataclasses.replace(state, trained=state.trained | {"params": params | {"classifier": {"kernel": new}}})


def some_of_each(identity: np.ndarray, count: int) -> np.ndarray:
    """Numbers, rising, of up to `count` images of everyone, evenly chosen among theirs; `identity` is [N] int64."""
    order, sizes = np.argsort(identity, kind="stable"), np.bincount(identity)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    size = np.repeat(sizes, sizes)
    return np.sort(order[place * count // size != (place - 1) * count // size])


def means(features: np.ndarray, identity: np.ndarray) -> tuple[np.ndarray, float]:
    """Everyone's mean feature as the neck has it, its numbers of mean 0 and deviation 1.

    Args:
      features: [N, D]; zeros for images that cannot be read.
      identity: [N] int64, 0 .. C - 1; nobody is left out.

    Returns:
      ([C, D] float32 of length 1, share of the images that are nearest to their own).
    """
    seen = features.any(1)
    known, whose = features[seen], identity[seen]
    deviation = known.std(0)
    normal = (known - known.mean(0)) / np.maximum(deviation, max(_SILENT * deviation.max(), np.finfo(np.float32).tiny))
    found = cosine.unit(cosine.centroids([(normal, whose)], int(identity.max()) + 1)).astype(np.float32)
    return found, float(np.mean((normal @ found.T).argmax(1) == whose))

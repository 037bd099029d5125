"""What tasks have in common whose network sees one augmented image of every record, and nothing else is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cion_jax import models
from cion_jax.data.crops import make_crops
from cion_jax.data.stream import Reader
from cion_jax.distributed.sharding import Rule
from cion_jax.tasks._embedding import embed
from cion_jax.training.state import TrainState
from cion_jax.training.task import Context, Prepared, Served


class OfCrops:
    """Those parts of a `training.task.Task`; `config` has an `image`, and `network()` gives a network of a backbone."""

    fields = ("image", "size", "identity")
    served = ("trained",)
    shown = {"accuracy": "accuracy"}  # noqa: RUF012
    config: Any
    rules: Sequence[Rule]

    def network(self) -> nnx.Module:
        """The network with random parameters from the run's seed."""
        raise NotImplementedError

    @cached_property
    def graphdef(self) -> Any:
        """The network's structure without arrays."""
        return models.split(nnx.eval_shape(self.network))[0]

    def backbone(self, network: dict[str, Any]) -> dict[str, Any]:
        """The plain backbone within a network."""
        return {kind: tree.get("backbone", {}) for kind, tree in network.items()}

    def with_backbone(self, network: dict[str, Any], backbone: dict[str, Any]) -> dict[str, Any]:
        """The network with another backbone; what stands behind it starts anew."""
        return {kind: tree | ({"backbone": backbone[kind]} if backbone[kind] else {}) for kind, tree in network.items()}

    def start(self, state: TrainState, weights: dict[str, Any]) -> TrainState:
        """From `weights`; arrays that occur twice in them become two, since a step takes its state's."""
        return dataclasses.replace(state, trained=jax.tree.map(jnp.copy, weights))

    def prepare(self, state: TrainState, batch: Mapping[str, jax.Array], key: jax.Array, context: Context) -> Prepared:
        """Augmented images and the identities that the batch has."""
        key_images, key_network = jax.random.split(key)
        x_BHWC = make_crops(key_images, batch["image"], batch["size"], self.config.image)
        return Prepared((x_BHWC, batch["identity"]), key_network)

    def features(self, served: Served, reader: Reader, numbers: np.ndarray, mesh: Mesh, what: str) -> np.ndarray:
        """[N, D] float32 of unit length, of images by their numbers; see `embed`."""
        data, network = self.config.data, (served.graphdef, served.params, served.stats)
        return embed(
            network,
            reader,
            self.config.image,
            mesh,
            self.rules,
            numbers=numbers,
            batch_size=data.batch_size,
            canvas=data.canvas,
            threads=data.threads,
            what=what,
        )

    def carry(self, state: TrainState, params: Any, prepared: Prepared, at: Mapping[str, jax.Array]) -> dict[str, Any]:
        """Nothing."""
        return {}

"""A backbone of this project; the only place where JAX enters data_prep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cion_jax.common.errors import UserError
from data_prep.embedders import REGISTRY, common

BATCH = 1024  # crops held at a time; the backbone cuts them into batches of its own


@REGISTRY.add("flax")
class Flax:
    """The teacher backbone of a training run's newest checkpoint."""

    usage = "flax:CHECKPOINT"

    def __init__(self, checkpoint: str):
        """Opens what `cion_jax.weights.load.load` takes; raises EmbedderError where it does not."""
        from cion_jax.weights.load import load  # only where it is asked for: it starts JAX

        try:
            self._backbone = load(str(Path(checkpoint).expanduser()))
        except UserError as error:  # a setting or a checkpoint that cannot be used
            raise common.EmbedderError(f"--embedder=flax:{checkpoint}: {error}") from error
        self.name = f"flax:{checkpoint}"
        self.digest = self._backbone.digest()

    def __call__(self, crops: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB crops of any sizes -> [n, d] float32, L2-normalized."""
        return common.embed(crops, BATCH, self._backbone.features, self._backbone)

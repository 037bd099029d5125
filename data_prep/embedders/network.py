"""A network in a file as an embedder, whatever runs it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cion_jax.common.image_network import ImageNetwork
from data_prep.embedders import common


class Network:
    """Crops -> features through a network of images."""

    def __init__(self, network: ImageNetwork):
        """Takes an opened network."""
        self._network = network
        self.name, self.digest, self.features = network.name, network.digest, network.features

    def __call__(self, crops: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB crops of any sizes -> [n, d] float32, L2-normalized."""
        return common.embed(crops, self._network.batch, self.features, self._network.forward)

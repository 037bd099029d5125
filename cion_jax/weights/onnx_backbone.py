"""Any person re-identification network in ONNX form as a feature extractor, on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cion_jax.common.onnx_network import OnnxNetwork


class OnnxBackbone:
    """`FILE?OPTIONS` of `onnx:FILE?OPTIONS` as an extractor; what it is fed with says `common.image_network`.

    Attributes:
      name: of the file.
      step: None, as nobody knows.
      size: (height, width) of its input in pixels.
      features: d, width of its output.
    """

    step: int | None = None

    def __init__(self, argument: str, batch_size: int = 64):
        """Opens the file, of which at most `batch_size` images are computed at a time; raises as `OnnxNetwork`."""
        self._network = OnnxNetwork(argument, "--checkpoint=onnx:FILE", "onnx")
        self._batch = self._network.fixed or batch_size
        self.name, self.size, self.features = Path(argument).name, self._network.size, self._network.features

    def __call__(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB images of any sizes -> [N, d] float32, not normalized."""
        waiting, done = iter(images), [np.zeros((0, self.features), np.float32)]
        while batch := list(itertools.islice(waiting, self._batch)):
            done.append(self._network.forward(batch))
        return np.concatenate(done)

    def digest(self) -> str:
        """SHA-256 of the file, of those that it keeps weights in, and of the options."""
        return self._network.digest

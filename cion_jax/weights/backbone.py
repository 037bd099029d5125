"""A frozen network that embeds images, wherever its weights come from."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax import models
from cion_jax.common.paths import path_name
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.training.config import RunConfig

DEFAULT = Preprocessing()  # where neither a run, a file nor the command line says it


@dataclass(frozen=True)
class Run:
    """The training run that weights come from.

    Attributes:
      workdir: of the run.
      config: of the run.
      step: training steps behind the weights.
      index: digest of the data's index.
    """

    workdir: Path
    config: RunConfig
    step: int
    index: str


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network: evaluation mode, running statistics, float32.

    Attributes:
      name: in the registry of backbones.
      graphdef: its structure, as `models.split` gives it.
      params, stats: its trees, float32.
      preprocessing: of its input.
      step: training steps behind it, 0 if untrained, None where that is not known.
      run: the run that it was trained in, None for files and for an untrained one.
      head: the distillation head's params, where the weights come with one.
      batch_size: images that are computed at a time.
      devices: that share these images, as `on` says; none: JAX's first one computes all of them.
      last: (mean [d], matrix [d, d]) that exported programs end with: features of length 1 lose the mean and are
        multiplied; None: they end with features of length 1. Nothing but an export looks at it.
    """

    name: str
    graphdef: Any = field(repr=False)
    params: dict[str, Any] = field(repr=False)
    stats: dict[str, Any] = field(repr=False)
    preprocessing: Preprocessing = DEFAULT
    step: int | None = None
    run: Run | None = None
    head: dict[str, Any] = field(default_factory=dict, repr=False)
    batch_size: int = 64
    devices: tuple[Any, ...] = field(default=(), repr=False)
    last: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its input in pixels."""
        return self.preprocessing.size

    @functools.cached_property
    def features(self) -> int:
        """d, the width of its output."""
        return self.module().features

    def module(self) -> Any:
        """The `nnx.Module`."""
        return models.merge(self.graphdef, self.params, self.stats)

    def __call__(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Embeds images; the device works while the next batch is decoded.

        Args:
          images: [h, w, 3] uint8 RGB of any sizes; they are stretched to the input size.

        Returns:
          [N, d] float32, not normalized.
        """
        done: list[np.ndarray] = []
        running = None
        for count, batch_BHWC in _batches((fit(image, self.size) for image in images), self.batch_size):
            started = count, self.forward(batch_BHWC)
            done += _finish(running)
            running = started
        done += _finish(running)
        return np.concatenate(done) if done else np.zeros((0, self.features), np.float32)

    def forward(self, image_BHWC: Any) -> jax.Array:
        """[B, H, W, 3] uint8 RGB of the input size -> [B, d] float32; B is a multiple of the devices."""
        params, stats = self._placed
        if self.devices:
            image_BHWC = jax.device_put(image_BHWC, self._over(P("data")))
        return _forward(self.graphdef, self.preprocessing, params, stats, image_BHWC)

    def on(self, devices: Sequence[Any]) -> Backbone:
        """The same network, an equal share of every batch on each of some devices of this process."""
        return replace(self, devices=tuple(devices), batch_size=-(-self.batch_size // len(devices)) * len(devices))

    @functools.cached_property
    def _placed(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Params and stats, whole on every device."""
        both = self.params, self.stats
        return jax.device_put(both, self._over(P())) if self.devices else both

    def _over(self, spec: P) -> NamedSharding:
        return NamedSharding(Mesh(np.array(self.devices), ("data",)), spec)

    def digest(self) -> str:
        """SHA-256 of what determines the features: network, preprocessing, parameters and statistics."""
        digest = hashlib.sha256(f"{self.name} {self.preprocessing}".encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path((self.params, self.stats)):
            digest.update(f"{path_name(path)} {leaf.shape}".encode())
            digest.update(np.asarray(leaf, "<f4").tobytes())
        return digest.hexdigest()


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretches an [h, w, 3] uint8 image to (height, width): by area where both sides shrink, else bicubic."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"expected an [h, w, 3] uint8 image, got {image.shape} {image.dtype}")
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(
    graphdef: Any, preprocessing: Preprocessing, params: dict, stats: dict, image_BHWC: jax.Array
) -> jax.Array:
    mean, std = jnp.array(preprocessing.mean), jnp.array(preprocessing.std)
    x_BHWC = (image_BHWC.astype(jnp.float32) / 255 - mean) / std
    return models.merge(graphdef, params, stats)(x_BHWC, train=False)


def _finish(running: tuple[int, jax.Array] | None) -> list[np.ndarray]:
    """Waits for a batch and drops its padding."""
    return [] if running is None else [np.asarray(running[1], np.float32)[: running[0]]]


def _batches(images: Iterable[np.ndarray], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (images in it, [size, h, w, 3]); the last batch is padded, so that one shape is compiled only."""
    batch: list[np.ndarray] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield size, np.stack(batch)
            batch = []
    if batch:
        padding = [np.zeros_like(batch[0])] * (size - len(batch))
        yield len(batch), np.stack(batch + padding)

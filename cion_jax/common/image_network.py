"""A network in a file, whatever runs it: how crops become its input and its output features."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cion_jax.common import images, onnx_session
from cion_jax.common.image_options import ImageNetworkError, Options

BATCH = 64
_MOST = 2**26  # pixels of a batch: 64 crops of 1024 x 1024
_ALIKE = 0.99999  # cosine similarity of different crops from which on their features count as equal
_DTYPES = ("float16", "float32", "float64", "uint8")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Input:
    """What a network takes.

    Attributes:
      shape: of its input, None where a side is free.
      dtype: of its numbers.
    """

    shape: Sequence[int | None]
    dtype: str

    @property
    def channels_last(self) -> bool:
        """Whether it takes [N, height, width, 3] and not [N, 3, height, width]."""
        return onnx_session.channels_last(self.shape)


class ImageNetwork:
    """Crops -> features through a network of images.

    float inputs get RGB / 255 less the ImageNet mean, by its standard deviation, unless the options say otherwise;
    uint8 inputs get the pixels. Crops are resized bilinearly, by area where they shrink.

    Attributes:
      name: as given on the command line.
      digest: of all that its features depend on.
      size: (height, width) of its input in pixels.
      fixed: how many crops it takes at a time, None where that is free.
      batch: how many it is to be given at a time.
      features: d, width of its output.
    """

    def __init__(self, name: str, digest: str, takes: Input, run: Callable[[np.ndarray], np.ndarray], options: Options):
        """Tries the network on a black image.

        Args:
          name: as given on the command line.
          digest: of all files that it consists of.
          takes: its input.
          run: [N, ...] of that input -> output, [N, d] or [N, d, 1, 1].
          options: as given.

        Raises:
          ImageNetworkError: an input or output of another kind.
        """
        self.name, self._takes, self._run, self._options = name, takes, run, options
        self.digest = digest if options == Options() else hashlib.sha256(f"{digest} {options}".encode()).hexdigest()
        self.fixed = takes.shape[0] if takes.shape else None
        self.size = _size(name, takes, options)
        self.batch = self.fixed or BATCH
        self._doubted = False
        self.features = self._features(self.prepare([np.zeros((*self.size, 3), np.uint8)])).shape[1]

    def prepare(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """The network's input for these crops."""
        x_NHWC = np.stack([images.stretched(crop, *self.size) for crop in crops])
        if self._options.channels == "bgr":
            x_NHWC = x_NHWC[..., ::-1]
        if self._takes.dtype != "uint8":
            mean, std = (np.array(values, np.float32) for values in self._options.normalization)
            x_NHWC = (x_NHWC.astype(np.float32) / (255 / self._options.scale) - mean) / std
        ordered = x_NHWC if self._takes.channels_last else x_NHWC.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(ordered, self._takes.dtype)

    def forward(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """At most `fixed` [h, w, 3] uint8 RGB crops of any sizes -> [n, d] float32, of any length."""
        x = self.prepare(crops)
        features = self._features(x)
        if not self._doubted and (doubt := doubts(x, features)):
            self._doubted = True
            _LOG.warning("%s", self._doubtful(doubt, x))
        return features

    def _doubtful(self, doubt: str, x: np.ndarray) -> str:
        order = "BGR" if self._options.channels == "bgr" else "RGB"
        return (
            f"{self.name}: its first features look wrong: {doubt}. It was fed {self._takes.dtype} {list(x.shape)}, "
            f"{order}, values {x.min():.3g} .. {x.max():.3g}; if it expects something else, say so, like "
            f"'{self.name.split('?')[0]}?channels=bgr&range=255&mean=0&std=1'"
        )

    def _features(self, x: np.ndarray) -> np.ndarray:
        """[n, d] float32 of n images; a batch of fixed size is filled up with the last image."""
        count = len(x)
        x = onnx_session.filled(x, self.fixed)
        found = np.asarray(self._run(x))
        if found.ndim < 2 or len(found) != len(x) or sum(side > 1 for side in found.shape[1:]) > 1:
            raise ImageNetworkError(
                f"{self.name} gives {list(found.shape)} for {len(x)} images, expected one row of features each, "
                "[N, d]; export it with its pooling and without its classifier"
            )
        return found.reshape(len(x), -1)[:count].astype(np.float32)


def doubts(x: np.ndarray, features: np.ndarray) -> str | None:
    """What looks wrong about features [n, d] of inputs x [n, ...], if anything."""
    if not np.isfinite(features).all():
        return "some are not finite"
    if features.shape[1] > 1 and (np.ptp(features, axis=1) == 0).any():
        return "all numbers of an image are the same"
    different = (x != x[:1]).reshape(len(x), -1).any(1)
    length = np.maximum(np.linalg.norm(features, axis=1), np.finfo(np.float32).tiny)
    if different.any() and (features @ features[0] / length / length[0])[different].min() > _ALIKE:
        return "they are the same for different images"
    return None


def _size(name: str, takes: Input, options: Options) -> tuple[int, int]:
    """(height, width) of a network's input; raises ImageNetworkError where it takes no images."""
    shape = list(takes.shape)
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or takes.dtype not in _DTYPES:
        raise ImageNetworkError(
            f"{name} takes {shape} {takes.dtype}, expected [N, 3, height, width] or [N, height, width, 3] of "
            f"{', '.join(_DTYPES)}; export it again"
        )
    height, width = shape[1:3] if takes.channels_last else shape[2:]
    if takes.dtype == "uint8" and (options.mean or options.std or options.range):
        raise ImageNetworkError(f"{name}: its input is uint8, it gets the pixels; leave mean, std and range out")
    if options.size and any(own not in (None, given) for own, given in zip((height, width), options.size, strict=True)):
        raise ImageNetworkError(f"{name}: its file says {height}x{width}; leave size out")
    height, width = options.size or (height, width)
    if height is None or width is None:
        raise ImageNetworkError(f"{name} leaves height and width free; give them, like {name}?size=256x128")
    if (shape[0] or BATCH) * height * width > _MOST:
        raise ImageNetworkError(
            f"{name} would take {shape[0] or BATCH} crops of {height}x{width} at a time, {_MOST:,} pixels at most are "
            "possible; crops of people are some 256x128"
        )
    return height, width

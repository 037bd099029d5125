"""Any person re-identification network in ONNX form as a feature extractor, on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from cion_jax.common import onnx_files, onnx_session
from cion_jax.weights.torch_names import WeightsError

# Per channel, of the ImageNet training images in 0 .. 1: what these networks are trained with.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
DTYPES: dict[str, type[np.generic]] = {"float": np.float32, "float16": np.float16, "uint8": np.uint8}
"""Types of numbers that a network may take, by ONNX's names."""


class OnnxBackbone:
    """A network from [N, 3, H, W] or [N, H, W, 3] images to [N, d] or [N, d, 1, 1].

    H and W come from the file; N may be free or fixed. Inputs of type float or float16 get RGB / 255 less the ImageNet
    mean, by its standard deviation, uint8 inputs the pixels. Images are resized bilinearly, as the field's tests do.

    Attributes:
      name: of the file.
      step: None, as nobody knows.
      size: (height, width) of its input in pixels.
      features: d, width of its output.
    """

    step: int | None = None

    def __init__(self, file: str, batch_size: int = 64):
        """Opens the file; raises WeightsError or OnnxError where it is missing, no ONNX model, or has other inputs."""
        path = Path(file)
        if not path.is_file():
            raise WeightsError(f"no ONNX model at {path}; give --checkpoint=onnx:FILE with an existing file")
        self._digest = onnx_files.digest(path)
        self._session = onnx_session.opened(path, "onnx:FILE", "onnx")
        self.name = path.name
        shape = self._session.shape
        sides = shape[1:3] if self._session.channels_last else shape[2:]
        images = len(shape) == 4 and 3 in (shape[1], shape[3]) and None not in sides
        if not images or self._session.dtype not in DTYPES:
            raise WeightsError(
                f"{path} takes {shape} {self._session.dtype}, expected [N, 3, height, width] or [N, height, width, 3] "
                f"of {', '.join(DTYPES)}, of fixed height and width; export it again"
            )
        self._dtype = DTYPES[self._session.dtype]
        self.size: tuple[int, int] = (sides[0] or 0, sides[1] or 0)
        self._batch, self._fixed = shape[0] or batch_size, shape[0]
        features = self._run(self._pixels(np.zeros((*self.size, 3), np.uint8))[None])
        if features.ndim != 2:
            raise WeightsError(f"{path} gives {list(features.shape)} for one image, expected [1, d]")
        self.features = features.shape[1]

    def __call__(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB images of any sizes -> [N, d] float32, not normalized."""
        waiting, done = iter(images), [np.zeros((0, self.features), np.float32)]
        while batch := [self._pixels(image) for image in itertools.islice(waiting, self._batch)]:
            done.append(self._run(np.stack(batch)))
        return np.concatenate(done)

    def digest(self) -> str:
        """SHA-256 of the file, and of those that it keeps weights in."""
        return self._digest

    def _pixels(self, image: np.ndarray) -> np.ndarray:
        """The network's input for an image [h, w, 3]."""
        x_HWC = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        if self._dtype != np.uint8:
            x_HWC = ((x_HWC.astype(np.float32) / 255 - MEAN) / STD).astype(self._dtype)
        return x_HWC if self._session.channels_last else x_HWC.transpose(2, 0, 1)

    def _run(self, x: np.ndarray) -> np.ndarray:
        """[n, d] of n inputs; a batch of fixed size is filled up with the last one."""
        filled = onnx_session.filled(x, self._fixed)
        found = np.asarray(self._session.run(filled, self._session.outputs[0]), np.float32)[: len(x)]
        return found[:, :, 0, 0] if found.shape[2:] == (1, 1) else found

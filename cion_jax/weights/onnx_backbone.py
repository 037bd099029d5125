"""Any person re-identification network in ONNX form as a feature extractor, on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from cion_jax.common import onnx_files
from cion_jax.common.extras import needed
from cion_jax.weights.torch_names import WeightsError

# Per channel, of the ImageNet training images in 0 .. 1: what these networks are trained with.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class OnnxBackbone:
    """A network with one input [N, 3, H, W] float32 (RGB / 255, ImageNet mean and std) and output [N, d].

    H and W come from the file; N may be free or fixed. Images are resized bilinearly, as the field's tests do.

    Attributes:
      name: of the file.
      step: None, as nobody knows.
      size: (height, width) of its input in pixels.
      features: d, width of its output.
    """

    step: int | None = None

    def __init__(self, file: str, batch_size: int = 64):
        """Opens the file; raises WeightsError where it is missing, no ONNX model, or has other inputs."""
        with needed("onnx:FILE", "onnx"):
            import onnxruntime  # only now: other checkpoints do without it
        path = Path(file)
        if not path.is_file():
            raise WeightsError(f"no ONNX model at {path}; give --checkpoint=onnx:FILE with an existing file")
        try:
            self._digest = onnx_files.digest(path)
        except onnx_files.OnnxFileError as error:
            raise WeightsError(str(error)) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise WeightsError(f"{path} is not a usable ONNX model: {error}") from error
        self.name = path.name
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = list(inputs[0].shape)
        usable = len(shape) == 4 and shape[1] == 3 and all(isinstance(n, int) for n in shape[2:])
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not usable:
            raise WeightsError(
                f"{path} takes {len(inputs)} inputs, the first {shape} {inputs[0].type}, expected one [N, 3, height, "
                "width] tensor(float) of fixed height and width; export it again"
            )
        self.size: tuple[int, int] = (shape[2], shape[3])
        self._input, self._output = inputs[0].name, outputs[0].name
        self._batch, self._fixed = (shape[0], True) if isinstance(shape[0], int) else (batch_size, False)
        features = self._run(np.zeros((1, 3, *self.size), np.float32))
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
        resized = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_LINEAR)
        return ((resized.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)

    def _run(self, x_NCHW: np.ndarray) -> np.ndarray:
        """[n, d] of n images; a batch of fixed size is filled up with the last image."""
        missing = self._batch - len(x_NCHW) if self._fixed else 0
        filled = np.concatenate([x_NCHW, np.repeat(x_NCHW[-1:], missing, axis=0)])
        return np.asarray(self._session.run([self._output], {self._input: filled})[0], np.float32)[: len(x_NCHW)]

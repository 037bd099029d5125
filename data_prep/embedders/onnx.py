"""Any person re-identification network in ONNX form, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime

from data_prep.embedders import common

# Per channel, of the ImageNet training images in 0 .. 1: what these networks are trained with.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
BATCH = 64


class Onnx:
    """A network with one input [N, 3, H, W] float32 (RGB / 255, ImageNet mean and std) and output [N, d].

    H and W come from the file; N may be free or fixed. Crops are resized bilinearly, as OSNet's training did.
    """

    def __init__(self, file: str):
        """Opens the file; raises EmbedderError where it is missing, no ONNX model, or has other inputs."""
        path = Path(file)
        if not path.is_file():
            raise common.EmbedderError(f"no extractor at {path}; give --embedder=onnx:FILE with an existing file")
        content = path.read_bytes()
        self.name = f"onnx:{file}"
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise common.EmbedderError(f"{path} is not a usable ONNX model: {error}") from error
        self._input, self._fixed, self._height, self._width = self._layout(path)
        self._features = self._run(np.zeros((1, 3, self._height, self._width), np.float32)).shape[1]

    def __call__(self, crops: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB crops of any sizes -> [n, d] float32, L2-normalized."""
        return common.embed(crops, self._fixed or BATCH, self._features, self._forward)

    def _layout(self, path: Path) -> tuple[str, int | None, int, int]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = list(inputs[0].shape)
        usable = len(shape) == 4 and shape[1] == 3 and all(isinstance(n, int) for n in shape[2:])
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not usable or len(outputs[0].shape) != 2:
            raise common.EmbedderError(
                f"{path} maps {shape} {inputs[0].type} to {outputs[0].shape}, expected one input [N, 3, height, "
                "width] tensor(float) of fixed height and width and an output [N, d]; export it again"
            )
        return inputs[0].name, shape[0] if isinstance(shape[0], int) else None, shape[2], shape[3]

    def _forward(self, crops: list[np.ndarray]) -> np.ndarray:
        pixels_NHWC = np.stack([common.resize(crop, self._height, self._width) for crop in crops])
        x_NHWC = (pixels_NHWC.astype(np.float32) / 255 - MEAN) / STD
        return self._run(np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2)))

    def _run(self, x_NCHW: np.ndarray) -> np.ndarray:
        """[n, d] of n images; a batch of fixed size is filled up with the last image."""
        count = len(x_NCHW)
        if self._fixed and count < self._fixed:
            x_NCHW = np.concatenate([x_NCHW, np.repeat(x_NCHW[-1:], self._fixed - count, 0)])
        return self._session.run(None, {self._input: x_NCHW})[0][:count]

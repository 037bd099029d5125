"""A network in ONNX form, run on the CPU by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.common.errors import UserError
from cion_jax.common.extras import needed

_SILENT = 4  # severity from which on ONNX Runtime speaks; what it raises is told


class OnnxError(UserError):
    """No file in ONNX form, or one that ONNX Runtime cannot run."""


@dataclass(frozen=True)
class OnnxSession:
    """An opened network with one input.

    Attributes:
      shape: of its input, None where a side is free.
      dtype: of its input's numbers, as ONNX calls it: `float`, `uint8`.
      outputs: names of its outputs.
    """

    session: Any
    name: str
    shape: list[int | None]
    dtype: str
    outputs: list[str]

    @property
    def channels_last(self) -> bool:
        """As of `channels_last`."""
        return channels_last(self.shape)

    def run(self, x: np.ndarray, output: str) -> np.ndarray:
        """One output for inputs [n, ...]."""
        return np.asarray(self.session.run([output], {self.name: x})[0])


def opened(file: Path, wanted_by: str, extra: str) -> OnnxSession:
    """Opens a file.

    Args:
      file: path.
      wanted_by: the flag that needs ONNX Runtime, and `extra`: the extra that installs it.

    Raises:
      OnnxError: it is no usable model, or has not one input.
    """
    with needed(wanted_by, extra):
        import onnxruntime  # only now: who gives no such file does without it
    onnxruntime.set_default_logger_severity(_SILENT)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _SILENT
    try:
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise OnnxError(f"{file} is not a usable ONNX model: {error}") from error
    ports = session.get_inputs()
    if len(ports) != 1:
        raise OnnxError(f"{file} has {len(ports)} inputs, expected one; export it again")
    shape = [side if isinstance(side, int) else None for side in ports[0].shape]
    dtype = ports[0].type.removeprefix("tensor(").removesuffix(")")
    return OnnxSession(session, ports[0].name, shape, dtype, [each.name for each in session.get_outputs()])


def channels_last(shape: Sequence[int | None]) -> bool:
    """Whether an input of this shape takes [N, height, width, 3] and not [N, 3, height, width]."""
    return len(shape) == 4 and shape[1] != 3 and shape[3] == 3


def filled(x: np.ndarray, count: int | None) -> np.ndarray:
    """Rows [n, ...] with the last one repeated up to a batch of fixed size; None: any size is taken."""
    return np.concatenate([x, np.repeat(x[-1:], max((count or 0) - len(x), 0), axis=0)])

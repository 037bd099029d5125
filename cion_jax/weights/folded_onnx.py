"""ONNX files of PyTorch networks whose norms the export had folded into the convolutions, read back as state dicts.

PyTorch's exporter computes `norm(conv(x))` as one convolution with a bias and drops the names of both. What is left of
the name is the node's own ("/conv2/conv2.0/conv1/conv/Conv"), and which norm belongs to it the model knows (`folds`).
The norm comes back as the identity but for the bias, so that the function in evaluation mode is the file's. What it did
in training cannot be known from the file: `weights.statistics.match` finds it out from images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.common import checksums
from cion_jax.models.layers import BatchNorm
from cion_jax.weights.torch_names import WeightsError


def read(path: str | Path, module: Any) -> dict[str, np.ndarray]:
    """State dict of a backbone under PyTorch's names.

    Args:
      path: of the ONNX file.
      module: of the network (`models.abstract(NAME)`): which norm is behind which convolution.

    Raises:
      WeightsError: no ONNX file, or a convolution without a name of the model's.
    """
    import onnx  # only now: other files do without it
    from onnx import numpy_helper

    checksums.check(Path(path))
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's and onnx's have no common base
        raise WeightsError(f"{path} is not a usable ONNX model: {error}") from error
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    norms = dict(_norms(module))
    named = {name: array for name, array in stored.items() if not name.startswith(("onnx::", "/"))}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1].startswith("onnx::"):
            layer = _layer(node.output[0])
            if layer not in norms or len(node.input) < 3:
                raise WeightsError(f"{path} has a convolution {layer!r}, the model has none of that name with a norm")
            named[f"{layer}.weight"] = stored[node.input[1]]
            named |= _identity(norms[layer], stored[node.input[2]])
    return named


def _identity(norm: tuple[str, float], bias: np.ndarray) -> dict[str, np.ndarray]:
    name, eps = norm
    ones = np.ones_like(bias)
    return {
        f"{name}.weight": ones,
        f"{name}.bias": bias,
        f"{name}.running_mean": np.zeros_like(bias),
        f"{name}.running_var": ones - np.float32(eps),
    }


def _norms(module: Any, path: str = "") -> Iterator[tuple[str, tuple[str, float]]]:
    """(name of a convolution, (name of its BatchNorm, epsilon)) of all pairs within a module."""
    for conv, norm in getattr(module, "folds", ()):
        found = getattr(module, norm)
        if isinstance(found, BatchNorm):
            yield f"{path}{conv}", (f"{path}{norm}", found.eps)
    for name, child in vars(module).items():
        if hasattr(child, "__dict__") and not name.startswith("_"):
            yield from _norms(child, f"{path}{name}.")


def _layer(output: str) -> str:
    """ "/conv2/conv2.0/conv1/conv/Conv_output_0" -> "conv2.0.conv1.conv": no part that the next one begins with."""
    *parts, _ = output.strip("/").split("/")
    return ".".join(a for a, b in zip(parts, [*parts[1:], ""], strict=True) if not b.startswith(a + "."))

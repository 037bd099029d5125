"""Floating-point operations of the products in a compiled program: XLA's own, cuBLAS's, cuDNN's."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, ...]

_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LIBRARY = re.compile(r'custom_call_target="__(cublas|cudnn)\$(\w+)')
_CONTRACTED = re.compile(r'lhs_contracting_dims=\{([\d,]*)\}|"lhs_contracting_dimensions": ?\[([\d,"]*)\]')
_WEIGHTS = re.compile(r'"intermediate_tensor_shape": ?\{.*?"dimensions": ?\[([\d," ]*)\]')
# Which of (first operand, second operand, result) a convolution's input, kernel and output are.
_FORWARD = (0, 1, 2)
_ROLES = {"convForward": _FORWARD, "convBiasActivationForward": _FORWARD}
_ROLES |= {"convBackwardInput": (2, 1, 0), "convBackwardFilter": (0, 2, 1)}


def is_library(attributes: str) -> bool:
    """Whether a custom call is one of cuBLAS or cuDNN, whose last result is a place to work in and no result."""
    return bool(_LIBRARY.search(attributes))


def flops(opcode: str, attributes: str, operands: Sequence[Shape], result: Shape) -> int:
    """Of one operation; 0 where it is no product. A multiplication and its addition are two."""
    library = _LIBRARY.search(attributes) if opcode == "custom-call" else None
    if opcode == "dot" or (library and library[1] == "cublas"):
        return _of_dot(attributes, operands[0], result)
    if opcode == "convolution":
        return _of_convolution(attributes, operands[0], operands[1], result)
    if library and (roles := next((r for name, r in _ROLES.items() if library[2].startswith(name)), None)):
        shapes = *operands[:2], result
        x, kernel, out = (shapes[role] for role in roles)
        return _of_convolution(attributes, x, kernel, out)
    if library and library[2].startswith("fmha"):
        return _of_attention(attributes, operands[0], backward="Backward" in library[2])
    return 0


def _of_dot(attributes: str, left: Shape, result: Shape) -> int:
    found = _CONTRACTED.search(attributes)
    axes = re.findall(r"\d+", found[1] or found[2] or "") if found else []
    return 2 * math.prod(result) * math.prod(left[int(axis)] for axis in axes)


def _of_attention(attributes: str, queries: Shape, backward: bool) -> int:
    """Two products of the size of the weights; with respect to their inputs four, and the weights once more."""
    found = _WEIGHTS.search(attributes)
    weights = math.prod(map(int, re.findall(r"\d+", found[1]))) if found else 0
    return 2 * (5 if backward else 2) * weights * queries[-1]


def _of_convolution(attributes: str, x: Shape, kernel: Shape, size: Shape) -> int:
    """As XLA counts: positions that lie between dilated pixels or on the margin are no work."""
    labels = _LABELS.search(attributes)
    if not labels:
        return 0
    left, right, out = labels[1], labels[2], labels[3]
    window = _WINDOW.search(attributes)
    settings = dict(part.split("=") for part in window[1].split()) if window else {}
    spatial = [axis for axis in left if axis.isdigit()]
    places = 1
    for number, axis in enumerate(sorted(spatial)):
        at = {key: value.split("x")[number] for key, value in settings.items()}
        places *= _places(x[left.index(axis)], kernel[right.index(axis)], size[out.index(axis)], at)
    return 2 * size[out.index("b")] * size[out.index("f")] * kernel[right.index("i")] * places


def _places(width: int, taps: int, outputs: int, at: dict[str, str]) -> int:
    """Pairs of an output and a tap along one axis that meet a pixel."""
    stride, dilated, apart = (int(at.get(key, 1)) for key in ("stride", "lhs_dilate", "rhs_dilate"))
    low = int(at["pad"].split("_")[0]) if "pad" in at else 0
    position = np.arange(outputs)[:, None] * stride - low + np.arange(taps) * apart
    return int(np.sum((position >= 0) & (position <= (width - 1) * dilated) & (position % dilated == 0)))

"""Feature extractors: `open("onnx:FILE")`, `open("openvino:FILE")`, `open("flax:CHECKPOINT")` or `open("color")`.

Several with a plus between them, `open("onnx:A+flax:B")`, are one whose distances are the mean of theirs.

A further one is a class with a `usage` ("mine:FILE") that takes what stands behind the colon and becomes an
`Embedder`; it is registered in `REGISTRY`, by another package through the entry point group `cion_jax.embedders`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from cion_jax.common.image_options import ImageNetworkError
from cion_jax.common.registry import Registry
from cion_jax.common.typed_config import unknown
from data_prep.embedders.common import EmbedderError
from data_prep.embedders.mixture import Mixture
from data_prep.types import Embedder

# Its modules import onnxruntime, OpenVINO and JAX only when an extractor of theirs is opened.
REGISTRY: Registry[Callable[[str], Embedder]] = Registry("embedder", "data_prep.embedders", "embedders")

FORMER = {"colour": "color"}  # names that extractors had

__all__ = ["REGISTRY", "EmbedderError", "kinds", "open"]


def kinds() -> list[str]:
    """What `open` takes, for people."""
    return [_usage(name) for name in REGISTRY]


def open(spec: str) -> Embedder:
    """Makes an embedder from its name on the command line.

    Args:
      spec: one of `kinds()`, or several of them with a plus between.

    Raises:
      EmbedderError: no such embedder (the nearest one is named), or its file is missing or unusable.
    """
    parts = _parts(spec)
    if len(parts) > 1:
        return Mixture([open(part) for part in parts])
    name, _, argument = spec.partition(":")
    if name in FORMER:
        name = FORMER[name]
        print(f"note: --embedder={spec} is called {name} now", file=sys.stderr)
    if name not in REGISTRY or bool(argument) != (":" in _usage(name)):
        raise EmbedderError(unknown(f"embedder {spec!r}", spec, kinds()))
    try:
        return REGISTRY[name](argument)
    except ImageNetworkError as error:
        raise EmbedderError(str(error)) from error


def _parts(spec: str) -> list[str]:
    """The extractors of a mixture. A plus that no extractor's name follows is part of a file's name."""
    parts = [spec.partition("+")[0]] if "+" in spec else [spec]
    for piece in spec.split("+")[1:]:
        if piece.partition(":")[0] in REGISTRY:
            parts.append(piece)
        else:
            parts[-1] += f"+{piece}"
    return parts


def _usage(name: str) -> str:
    return getattr(REGISTRY[name], "usage", name)

"""Feature extractors: `open("onnx:FILE")`, `open("openvino:FILE")`, `open("flax:CHECKPOINT")` or `open("color")`.

A further one is a class with a `usage` ("mine:FILE") that takes what stands behind the colon and becomes an
`Embedder`; it is registered in `REGISTRY`, by another package through the entry point group `cion_jax.embedders`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from cion_jax.common.registry import Registry
from cion_jax.common.typed_config import unknown
from data_prep.embedders.common import EmbedderError
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
      spec: one of `kinds()`.

    Raises:
      EmbedderError: no such embedder (the nearest one is named), or its file is missing or unusable.
    """
    name, _, argument = spec.partition(":")
    if name in FORMER:
        name = FORMER[name]
        print(f"note: --embedder={spec} is called {name} now", file=sys.stderr)
    if name not in REGISTRY or bool(argument) != (":" in _usage(name)):
        raise EmbedderError(unknown(f"embedder {spec!r}", spec, kinds()))
    return REGISTRY[name](argument)


def _usage(name: str) -> str:
    return getattr(REGISTRY[name], "usage", name)

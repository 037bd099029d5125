"""Feature extractors: `open("onnx:FILE")`, `open("flax:CHECKPOINT")` or `open("color")`."""

from __future__ import annotations

from cion_jax.common.typed_config import unknown
from data_prep.embedders.common import EmbedderError
from data_prep.types import Embedder

KINDS = ("onnx:FILE", "flax:CHECKPOINT", "color")

__all__ = ["KINDS", "EmbedderError", "open"]


def open(spec: str) -> Embedder:
    """Makes an embedder from its name on the command line.

    Args:
      spec: one of `KINDS`.

    Raises:
      EmbedderError: no such embedder (the nearest one is named), or its file is missing or unusable.
    """
    # Each is imported only when asked for: they pull in onnxruntime and JAX.
    kind, _, argument = spec.partition(":")
    if kind == "color" and not argument:
        from data_prep.embedders.color import Color

        return Color()
    if kind == "onnx" and argument:
        from data_prep.embedders.onnx import Onnx

        return Onnx(argument)
    if kind == "flax" and argument:
        from data_prep.embedders.flax import Flax

        return Flax(argument)
    raise EmbedderError(unknown(f"embedder {spec!r}", spec, KINDS))

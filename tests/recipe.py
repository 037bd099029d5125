"""Regenerates the weights and inputs behind the reference numbers (CION_FIXTURES/README.md)."""

import json
import zlib
from pathlib import Path

import numpy as np


def _value(seed, name, shape, rule, mult):
    g = np.random.default_rng([seed, zlib.crc32(name.encode())])
    draw = {
        "zero": lambda: np.zeros(shape, np.int64),
        "weight": lambda: g.standard_normal(shape) * np.sqrt(1.0 / np.prod(shape[1:])),
        "scale": lambda: 1 + 0.1 * g.standard_normal(shape),
        "bias": lambda: 0.1 * g.standard_normal(shape),
        "mean": lambda: 0.1 * g.standard_normal(shape),
        "embed": lambda: 0.5 * g.standard_normal(shape),
        "var": lambda: g.uniform(0.5, 1.5, shape),
    }[rule]()
    return draw if rule == "zero" else (draw * mult).astype(np.float32)


def load(path: Path):
    """Returns (json, npz) of one fixture given without its suffix."""
    return json.loads(path.with_suffix(".json").read_text()), np.load(path.with_suffix(".npz"))


def weights(spec: dict, seed: int | None = None) -> dict[str, np.ndarray]:
    """PyTorch-named weights of a fixture's JSON; integer buffers that are the model's own constants are left out."""
    seed = spec["seed"] if seed is None else seed
    mult = spec.get("mult", {})
    rows = zip(spec["entries"], spec["rules"], strict=True)
    return {n: _value(seed, n, tuple(s), r, mult.get(n, 1.0)) for (n, s, _, _), r in rows if r != "buffer"}


def image(seed: int, h: int, w: int) -> np.ndarray:
    """Two images of white noise, [2, 3, h, w] float32."""
    return np.random.default_rng([seed, h, w]).standard_normal((2, 3, h, w)).astype(np.float32)


def blocks(seed: int, h: int, w: int) -> np.ndarray:
    """Two images with coarse structure, [2, 3, h, w] float32."""
    g = np.random.default_rng([seed, h, w, 1])
    n = g.standard_normal((2, 3, h, w))
    lo = g.standard_normal((2, 3, h // 16, w // 16))
    off = g.standard_normal((2, 3, 1, 1))
    a, b = (np.array(v).reshape(2, 1, 1, 1) for v in ([1.0, 0.3], [0.3, 1.0]))
    return (a * n + b * np.repeat(np.repeat(lo, 16, 2), 16, 3) + 0.3 * off).astype(np.float32)


def faint(seed: int, h: int, w: int) -> np.ndarray:
    """White noise of 1e-3 contrast, where the epsilons of normalization layers matter."""
    return np.float32(1e-3) * image(seed, h, w)

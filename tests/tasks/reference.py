"""Reads the reference numbers of fine-tuning (CION_FIXTURES/downstream/README.md)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from tests import recipe

_RULES = {
    "num_batches_tracked": "zero",
    "running_mean": "mean",
    "running_var": "var",
    "pos_embed": "embed",
    "p": "power",
    "bias": "bias",
}


def load(fixtures: Path, name: str) -> tuple[dict, dict]:
    """(json, npz) of one fixture."""
    spec, arrays = recipe.load(fixtures / "downstream" / name)
    return spec, dict(arrays)


def json_only(fixtures: Path, name: str) -> dict:
    return json.loads((fixtures / "downstream" / name).with_suffix(".json").read_text())


def weights(seed: int, entries: list) -> dict[str, np.ndarray]:
    """PyTorch-named float32 weights, and integer buffers, of the rows `entries`."""

    def value(name, shape):
        rule = _RULES.get(name.split(".")[-1]) or ("scale" if len(shape) == 1 else "weight")
        if rule == "power":
            g = np.random.default_rng([seed, zlib.crc32(name.encode())])
            return (3 + 0.1 * g.standard_normal(shape)).astype(np.float32)
        return recipe._value(seed, name, shape, rule, 1.0)

    return {name: value(name, tuple(shape)) for name, shape, _, _ in entries}


def check(named: dict[str, np.ndarray], expected: list) -> None:
    """The fixture's own check sums of the weights."""
    floats = [a.astype(np.float64) for a in named.values() if a.dtype.kind == "f"]
    total = [sum(a.sum() for a in floats), sum(np.abs(a).sum() for a in floats), sum(a.size for a in floats)]
    np.testing.assert_allclose(total, expected, rtol=1e-9)


def error(got, expected) -> float:
    """Largest error in standard deviations of what was expected."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / expected.std())


def prefixed(arrays: dict, prefix: str) -> dict:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def crops(seed: int, n: int, h: int, w: int) -> np.ndarray:
    """[n, 3, h, w] float32 in 0 .. 255."""
    g = np.random.default_rng([seed, n, h, w, 2])
    noise = g.standard_normal((n, 3, h, w))
    lo = g.standard_normal((n, 3, h // 16, w // 16))
    off = g.standard_normal((n, 3, 1, 1))
    image = 128 + 30 * noise + 40 * np.repeat(np.repeat(lo, 16, 2), 16, 3) + 25 * off
    return np.clip(np.rint(image), 0, 255).astype(np.float32)


def photo(seed: int, i: int, h: int, w: int) -> np.ndarray:
    """[h, w, 3] uint8."""
    g = np.random.default_rng([seed, 900 + i])
    lo = g.integers(0, 256, (-(-h // 8), -(-w // 8), 3))
    n = g.integers(-20, 21, (h, w, 3))
    return np.clip(np.repeat(np.repeat(lo, 8, 0), 8, 1)[:h, :w] + n, 0, 255).astype(np.uint8)

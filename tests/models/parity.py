"""Backbones measured against the numbers of the authors' code (CION_FIXTURES/README.md, section 1).

    python -m tests.models.parity [NAME ...]

prints a table of largest errors, all backbones if none is named, and fails where a bound is exceeded.
`test_parity.py` asserts the same comparisons.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests import recipe
from tests.conftest import FIXTURES  # before JAX: sets its flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

from cion_jax import models
from cion_jax.models import weights

# Largest error / standard deviation of the reference. Un-fused RepViT and FastViT add up many branches.
TOLERANCES = {"repvit": 3e-4, "fastvit": 3e-4}
TOLERANCE = 1e-4
NORM_TOLERANCE = 1e-3  # of a gradient's norm, relative
# Two images' batch statistics make deep ResNets so ill-conditioned that float32 says nothing (2e-4 to 5e-3).
DEEP = ("resnet50", "resnet101", "resnet152")
# Rounding decides whether a rectified unit near zero is on: a flip changes single gradient elements by up to 1%.
RECTIFIED = ("resnet", "ghostnet")
FLIP = 2e-2

EVALUATION = ("256x128", "128x64", "blocks_256x128", "blocks_128x64", "faint_256x128")
TRAINING = ("train_256x128", "train_faint_256x128")
DIFFERENCES = ("256x128", "blocks_256x128")
GRADIENTS = tuple(f"gradient {part}, {mode}" for mode in ("eval", "train") for part in ("norms", "elements"))
CASES = (*EVALUATION, "difference of images", *TRAINING, "running statistics", *GRADIENTS)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One backbone with the recipe's weights: its fixture (`spec`, `expected`) and what ours gives."""

    spec: dict
    expected: dict
    named: dict  # the recipe's weights
    params: dict
    stats: dict
    outputs: dict  # as the fixture names them
    permuted: np.ndarray  # out_128x64 and out_blocks_128x64 of the images in reverse order
    traces: list  # shapes that the function behind these was traced for; it was called twice with one of two
    gradients: dict  # "eval" and, with BatchNorm, "train" -> {PyTorch name: gradient in PyTorch's axis order}
    stats_after: dict  # PyTorch name -> running statistics after one training step, of the first float type


class Comparison(NamedTuple):
    """An error and what it has to stay below."""

    error: float
    bound: float


def measure(name: str, folder: Path) -> Measured:
    """Runs one backbone on everything that its fixture has numbers of."""
    spec, expected = recipe.load(folder / "models" / name)
    named = recipe.weights(spec)
    graphdef, params, stats = _abstract(name, jnp.float32)
    params, stats = weights.from_torch(named, params, stats)
    outputs, permuted, traces, gradients = _evaluate(spec, graphdef, params, stats)
    gradients, after = {"eval": gradients}, {}
    if spec["n_batchnorm"]:
        trained, after, gradients["train"] = _train(spec, params, stats)
        outputs |= trained
    return Measured(spec, dict(expected), named, params, stats, outputs, permuted, traces, gradients, after)


def comparisons(m: Measured) -> dict[str, Comparison]:
    """Every case that the backbone has; only those with BatchNorm differ in training."""
    name, family = m.spec["name"], m.spec["name"].split("_")[0]
    tolerance = TOLERANCES.get(family, TOLERANCE)
    found = {case: Comparison(error(*_pair(m, f"out_{case}")), tolerance) for case in EVALUATION}
    found |= dict(_gradients(m, "eval"))
    if name.startswith("resnet"):
        # White noise gives nearly equal pooled features, so that a common offset could hide an error.
        pairs = [[rows[0] - rows[1] for rows in _pair(m, f"out_{case}")] for case in DIFFERENCES]
        found["difference of images"] = Comparison(max(error(*pair) for pair in pairs), tolerance)
    if m.spec["n_batchnorm"]:
        found |= dict(_training(m, tolerance)) | dict(_gradients(m, "train"))
    return found


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest error in standard deviations of what was expected."""
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / expected.std())


def _pair(m: Measured, key: str) -> tuple[np.ndarray, np.ndarray]:
    return m.outputs[key], m.expected[key]


def _training(m: Measured, tolerance: float) -> Iterator[tuple[str, Comparison]]:
    for case in TRAINING:
        wide = f"out_{case}_f64" in m.outputs
        # Where ours is exact and the reference is not, the reference's own rounding error comes on top.
        rounding = m.spec["outputs"][case]["fp32_error_over_std"] if m.spec["name"].startswith(DEEP) else 0
        got, expected = _pair(m, f"out_{case}" + "_f64" * wide)
        yield case, Comparison(error(got, expected), tolerance + (0 if wide else rounding))
    errors = [
        error(m.stats_after[f"{layer}.{name}"], m.expected[f"bn{i}_{name}_after"])
        for i, layer in enumerate(m.spec["bn_recorded"])
        for name in ("running_mean", "running_var")
    ]
    yield "running statistics", Comparison(max(errors), tolerance)


def _gradients(m: Measured, mode: str) -> Iterator[tuple[str, Comparison]]:
    """Of norms, relative to them; of first elements, relative to the root mean square of their gradient's.

    In training the reference is off by a share of its largest norm that the fixture states; what is within counts not.
    """
    gradients = [m.gradients[mode][name].astype(np.float64) for name in m.spec["grad_params"]]
    norms, firsts = (m.expected[f"grad_{kind}_{mode}"] for kind in ("l2", "first8"))
    own = norms.max() * m.spec.get("grad_l2_train_fp32_abs_error_over_max", 0) * (mode == "train")

    def largest(difference, scale):
        return float((np.maximum(np.abs(difference) - own, 0) / scale).max())

    found = np.array([np.linalg.norm(g) for g in gradients])
    yield f"gradient norms, {mode}", Comparison(largest(found - norms, norms), NORM_TOLERANCE)
    if mode == "train" and m.spec["name"].startswith("resnet"):
        return  # two images' batch statistics amplify flips: the reference's single elements are unknown
    found = np.stack([np.resize(np.append(g.ravel()[:8], np.zeros(8)), 8) for g in gradients])
    typical = norms / np.sqrt([g.size for g in gradients])
    bound = FLIP if m.spec["name"].startswith(RECTIFIED) else NORM_TOLERANCE
    yield f"gradient elements, {mode}", Comparison(largest(found - firsts, typical[:, None]), bound)


def _nhwc(x_BCHW):
    return x_BCHW.transpose(0, 2, 3, 1)


def _abstract(name, dtype):
    return models.split(models.abstract(name, dtype=dtype))


def _cotangent(spec) -> np.ndarray:
    return np.random.default_rng([spec["seed"], 7]).standard_normal((2, spec["embed_dim"])).astype(np.float32)


def _evaluate(spec, graphdef, params, stats):
    """Outputs in evaluation mode, their permutation, shapes traced, gradients."""
    seed, traces = spec["seed"], []

    @jax.jit
    def evaluate(params, stats, x):
        traces.append(x.shape)
        return models.merge(graphdef, params, stats)(x)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def differentiate(params, stats, x, g):
        out = models.merge(graphdef, params, stats)(x)
        return (out * g).sum(), out

    local = np.concatenate([_nhwc(kind(seed, 128, 64)) for kind in (recipe.image, recipe.blocks)])
    whole = np.concatenate([_nhwc(kind(seed, 256, 128)) for kind in (recipe.blocks, recipe.faint)])
    batches = (local, local[::-1].copy(), whole)
    straight, permuted, coarse = (np.asarray(evaluate(params, stats, batch)) for batch in batches)
    gradients, out = differentiate(params, stats, _nhwc(recipe.image(seed, 256, 128)), _cotangent(spec))
    names = ("128x64", "blocks_128x64", "blocks_256x128", "faint_256x128", "256x128")
    rows = (*np.split(straight, 2), *np.split(coarse, 2), np.asarray(out))
    outputs = {f"out_{name}": row for name, row in zip(names, rows, strict=True)}
    return outputs, permuted, traces, weights.to_torch(gradients, {})


def _train(spec, params, stats):
    """Outputs in training mode, running statistics and gradients of the first; float64 for deep ResNets."""
    wide = spec["name"].startswith(DEEP)
    with jax.enable_x64(wide):
        dtype = np.float64 if wide else np.float32
        graphdef, _, _ = _abstract(spec["name"], dtype)
        params, stats = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, stats))

        @jax.jit
        @partial(jax.grad, has_aux=True)
        def step(params, stats, x, g):
            model = models.merge(graphdef, params, stats)
            out = model(x, train=True)
            return (out * g).sum(), (out, models.split(model)[2])

        outputs, g = {}, jnp.asarray(_cotangent(spec), dtype)
        for case, kind in (("train_faint", recipe.faint), ("train", recipe.image)):
            gradients, (out, after) = step(params, stats, jnp.asarray(_nhwc(kind(spec["seed"], 256, 128)), dtype), g)
            outputs[f"out_{case}_256x128" + ("_f64" if wide and case == "train" else "")] = np.asarray(out)
        return outputs, weights.to_torch({}, after), weights.to_torch(gradients, {})


def main(names: list[str]) -> int:
    """Prints the table; 1 where a bound is exceeded."""
    wrong = []
    print("| backbone | " + " | ".join(CASES) + " |\n" + "|---" * (len(CASES) + 1) + "|")
    for name in names or models.names():
        found = comparisons(measure(name, FIXTURES))
        wrong += [
            f"{name}, {case}: {c.error:.1e}, bound {c.bound:.1e}" for case, c in found.items() if c.error >= c.bound
        ]
        print(
            f"| {name} | " + " | ".join(f"{found[c].error:.1e}" if c in found else "" for c in CASES) + " |", flush=True
        )
    print("\n".join(wrong) or "every error is below its bound", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

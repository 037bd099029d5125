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
from cion_jax.weights import torch_names
from tests import toy

# Largest error / standard deviation of the reference. Un-fused RepViT and FastViT add up many branches.
TOLERANCES = {"repvit": 3e-4, "fastvit": 3e-4}
TOLERANCE = 1e-4
EXACT = 1e-9  # of float64 against float64
# Two images' batch statistics make deep ResNets so ill-conditioned that float32 says nothing (2e-4 to 5e-3).
DEEP = ("resnet50", "resnet101", "resnet152")
# Rounding decides whether a rectified unit near zero is on. Such a flip changes the gradients of all layers before it,
# single elements by percents, so that two float32 programs are not comparable: ours is float64 here.
RECTIFIED = ("resnet", "ghostnet")
NO_FLIP = 1e-5  # an error of gradient norms below which the reference, as its fixture states, has no flip either
# What flips of the reference may change in an element, relative to the root mean square of the gradient, over the
# stated error of the norm, which averages what its elements are off by.
FLIPS_OVER_NORM = 100
VANISHING = 1e-6  # of the largest gradient's norm: a bias in front of BatchNorm has a gradient of rounding errors alone

EVALUATION = ("256x128", "128x64", "blocks_256x128", "blocks_128x64", "faint_256x128")
TRAINING = ("train_256x128", "train_faint_256x128")
DIFFERENCES = ("256x128_f64", "blocks_256x128")
PARTS = ("norms", "elements", "tensors off")
GRADIENTS = tuple(f"gradient {part}, {mode}" for mode in ("eval", "train") for part in PARTS)
WIDE = ("256x128_f64", "train_256x128_f64")
CASES = (*EVALUATION, *WIDE, "difference of images", *TRAINING, "running statistics", *GRADIENTS)


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
    named, wide = recipe.weights(spec), name.startswith(RECTIFIED)
    graphdef, params, stats = _abstract(name, jnp.float32)
    params, stats = torch_names.from_torch(named, params, stats)
    outputs, permuted, traces = _evaluate(spec, graphdef, params, stats)
    gradients, after = {}, {}
    exact, gradients["eval"] = _differentiate(spec, params, stats, wide)
    outputs |= exact
    if spec["n_batchnorm"]:
        trained, after, gradients["train"] = _train(spec, params, stats, name.startswith(DEEP))
        outputs |= trained
        if wide and not name.startswith(DEEP):
            exact, _, gradients["train"] = _train(spec, params, stats, True, faint=False)
            outputs |= exact
    return Measured(spec, dict(expected), named, params, stats, outputs, permuted, traces, gradients, after)


def comparisons(m: Measured) -> dict[str, Comparison]:
    """Every case that the backbone has; only those with BatchNorm differ in training."""
    name, family = m.spec["name"], m.spec["name"].split("_")[0]
    tolerance = TOLERANCES.get(family, TOLERANCE)
    found = {case: Comparison(error(*_pair(m, f"out_{case}")), tolerance) for case in EVALUATION}
    found |= dict(_gradients(m, "eval", tolerance))
    if name.startswith(RECTIFIED):
        found |= {case: Comparison(error(*_pair(m, f"out_{case}")), EXACT) for case in WIDE}
    if name.endswith("_ibn"):
        # Ours is float64 here: InstanceNorm makes the reference itself err by up to 1.2e-4.
        rounding = m.spec["outputs"]["faint_256x128"]["fp32_error_over_std"]
        found["faint_256x128"] = found["faint_256x128"]._replace(bound=max(tolerance, 1.01 * rounding))
    if name.startswith("resnet"):
        # White noise gives nearly equal pooled features, so that a common offset could hide an error. In float32 the
        # reference itself is off by up to 7e-5 there (ResNet-152-IBN, against its float64 outputs): float64, then.
        pairs = [[rows[0] - rows[1] for rows in _pair(m, f"out_{case}")] for case in DIFFERENCES]
        found["difference of images"] = Comparison(max(error(*pair) for pair in pairs), tolerance)
    if m.spec["n_batchnorm"]:
        found |= dict(_training(m, tolerance)) | dict(_gradients(m, "train", tolerance))
    return found


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest error in standard deviations of what was expected."""
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / expected.std())


def _pair(m: Measured, key: str) -> tuple[np.ndarray, np.ndarray]:
    return m.outputs[key], m.expected[key]


def _training(m: Measured, tolerance: float) -> Iterator[tuple[str, Comparison]]:
    deep = m.spec["name"].startswith(DEEP)
    # Where ours is exact and the reference is not, the reference's own rounding error comes on top.
    rounding = {case: m.spec["outputs"][case]["fp32_error_over_std"] * deep for case in TRAINING}
    for case in TRAINING:
        if f"out_{case}" in m.outputs:
            yield case, Comparison(error(*_pair(m, f"out_{case}")), tolerance + rounding[case])
    errors = [
        error(m.stats_after[f"{layer}.{name}"], m.expected[f"bn{i}_{name}_after"])
        for i, layer in enumerate(m.spec["bn_recorded"])
        for name in ("running_mean", "running_var")
    ]
    yield "running statistics", Comparison(max(errors), tolerance + rounding[TRAINING[0]])


def _gradients(m: Measured, mode: str, tolerance: float) -> Iterator[tuple[str, Comparison]]:
    """Of ten parameters: norms, relative to them; first elements, relative to the root mean square of their gradient's;
    and how many of the ten have an element that is off by more than the tolerance.

    What the norms of rectified networks are off by in the reference, which its fixture states, counts not.
    """
    rectified = m.spec["name"].startswith(RECTIFIED)
    gradients = [m.gradients[mode][name].astype(np.float64) for name in m.spec["grad_params"]]
    norms, firsts = (m.expected[f"grad_{kind}_{mode}"] for kind in ("l2", "first8"))
    scale = np.where(norms < VANISHING * norms.max(), norms.max(), norms)
    stated = m.spec["grad_l2_eval_fp32_rel_error" if mode == "eval" else "grad_l2_train_fp32_abs_error_over_max"]
    rounding = stated * (norms if mode == "eval" else norms.max()) * rectified
    off = np.abs(np.array([np.linalg.norm(g) for g in gradients]) - norms)
    yield f"gradient norms, {mode}", Comparison(float((np.maximum(off - rounding, 0) / scale).max()), tolerance)

    found = np.stack([np.resize(np.append(g.ravel()[:8], np.zeros(8)), 8) for g in gradients])
    typical = scale / np.sqrt([g.size for g in gradients])
    errors = (np.abs(found - firsts) / typical[:, None]).max(1)
    flips = rectified and stated > NO_FLIP
    if flips and mode == "train":
        return  # the batch statistics of two images amplify flips: the reference's single elements are unknown
    bound = FLIPS_OVER_NORM * stated if flips else tolerance
    yield f"gradient elements, {mode}", Comparison(float(errors.max()), bound)
    # With flips, the gradient nearest to the output has to be right all the same.
    off = (errors[:-1] > tolerance).sum() if errors[-1] < tolerance else len(errors)
    yield f"gradient tensors off, {mode}", Comparison(float(off), len(errors) if flips else 1)


def _nhwc(x_BCHW):
    return x_BCHW.transpose(0, 2, 3, 1)


def _abstract(name, dtype):
    return models.split(models.abstract(name, dtype=dtype))


def _cotangent(spec) -> np.ndarray:
    return np.random.default_rng([spec["seed"], 7]).standard_normal((2, spec["embed_dim"])).astype(np.float32)


def _evaluate(spec, graphdef, params, stats):
    """Outputs in evaluation mode, their permutation, shapes traced."""
    seed, traces = spec["seed"], []

    @jax.jit
    def evaluate(params, stats, x):
        traces.append(x.shape)
        return models.merge(graphdef, params, stats)(x)

    local = np.concatenate([_nhwc(kind(seed, 128, 64)) for kind in (recipe.image, recipe.blocks)])
    whole = np.concatenate([_nhwc(kind(seed, 256, 128)) for kind in (recipe.blocks, recipe.faint, recipe.image)])
    batches = (local, local[::-1].copy(), whole)
    straight, permuted, coarse = (np.asarray(evaluate(params, stats, batch)) for batch in batches)
    names = ("128x64", "blocks_128x64", "blocks_256x128", "faint_256x128", "256x128")
    rows = (*np.split(straight, 2), *np.split(coarse, 3))
    return {f"out_{name}": row for name, row in zip(names, rows, strict=True)}, permuted, traces


def _differentiate(spec, params, stats, wide: bool):
    """Outputs and gradients in evaluation mode; with InstanceNorm also of the faint images."""
    with jax.enable_x64(wide):
        graphdef, params, stats, g = _typed(spec, params, stats)

        def weighted(params, stats, x, g):
            out = models.merge(graphdef, params, stats)(x)
            return (out * g).sum(), out

        x, faint = (jnp.asarray(_nhwc(kind(spec["seed"], 256, 128)), g.dtype) for kind in (recipe.image, recipe.faint))
        gradients, out = jax.jit(jax.grad(weighted, has_aux=True))(params, stats, x, g)
        outputs = {"out_256x128" + "_f64" * wide: np.asarray(out)}
        if spec["name"].endswith("_ibn"):
            outputs["out_faint_256x128"] = np.asarray(jax.jit(weighted)(params, stats, faint, g)[1])
        return outputs, torch_names.to_torch(gradients, {})


def _train(spec, params, stats, wide: bool, faint: bool = True):
    """Outputs in training mode of the images, and of the faint ones; running statistics and gradients of the former."""
    with jax.enable_x64(wide):
        graphdef, params, stats, g = _typed(spec, params, stats)

        @jax.jit
        @partial(jax.grad, has_aux=True)
        def step(params, stats, x, g):
            model = models.merge(graphdef, params, stats)
            out = model(x, train=True)
            return (out * g).sum(), (out, models.split(model)[2])

        outputs, kinds = {}, {"train_faint": recipe.faint} if faint else {}
        for case, kind in (kinds | {"train": recipe.image}).items():
            x = jnp.asarray(_nhwc(kind(spec["seed"], 256, 128)), g.dtype)
            gradients, (out, after) = step(params, stats, x, g)
            outputs[f"out_{case}_256x128" + ("_f64" if wide and case == "train" else "")] = np.asarray(out)
        return outputs, torch_names.to_torch({}, after), torch_names.to_torch(gradients, {})


def _typed(spec, params, stats):
    """Backbone, weights and cotangent in the widest float that is enabled."""
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    graphdef, _, _ = _abstract(spec["name"], dtype)
    params, stats = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, stats))
    return graphdef, params, stats, jnp.asarray(_cotangent(spec), dtype)


def main(names: list[str]) -> int:
    """Prints the table; 1 where a bound is exceeded."""
    wrong = []
    print("| backbone | " + " | ".join(CASES) + " |\n" + "|---" * (len(CASES) + 1) + "|")
    for name in names or toy.PUBLISHED:
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

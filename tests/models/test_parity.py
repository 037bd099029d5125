"""Every backbone of the registry against the numbers of the authors' code (CION_FIXTURES/README.md, section 1)."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models import weights
from tests import recipe

# Fully compared in the fast tier: the backbones that the road is walked with, and one each of the families that compile
# in under half a minute.
FAST = {
    *("vit_tiny", "vit_small", "vit_base", "resnet18", "resnet50", "resnet18_ibn", "resnet50_ibn"),
    *("swin_tiny", "convnext_tiny", "volo_d1"),
}
# Largest error / standard deviation of the reference. Un-fused RepViT and FastViT add up many branches.
TOLERANCES = {"repvit": 3e-4, "fastvit": 3e-4}
TOLERANCE = 1e-4
# Two images' batch statistics make deep ResNets so ill-conditioned that float32 says nothing (2e-4 to 5e-3).
DEEP = ("resnet50", "resnet101", "resnet152")
# Rounding decides whether a rectified unit near zero is on: a flip changes single gradient elements by up to 1%.
RECTIFIED = ("resnet", "ghostnet")

pytestmark = pytest.mark.parity


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
    gradients: dict  # PyTorch name -> gradient in PyTorch's axis order
    stats_after: dict  # PyTorch name -> running statistics after one training step, of the first float type

    @property
    def tolerance(self) -> float:
        return TOLERANCES.get(self.spec["name"].split("_")[0], TOLERANCE)


def _nhwc(x_BCHW):
    return x_BCHW.transpose(0, 2, 3, 1)


def _abstract(name, dtype):
    return models.split(nnx.eval_shape(lambda: models.create(name, dtype=dtype, rngs=nnx.Rngs(0))))


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
    g = np.random.default_rng([seed, 7]).standard_normal((2, spec["embed_dim"])).astype(np.float32)
    gradients, out = differentiate(params, stats, _nhwc(recipe.image(seed, 256, 128)), g)
    names = ("128x64", "blocks_128x64", "blocks_256x128", "faint_256x128", "256x128")
    rows = (*np.split(straight, 2), *np.split(coarse, 2), np.asarray(out))
    outputs = {f"out_{name}": row for name, row in zip(names, rows, strict=True)}
    return outputs, permuted, traces, weights.to_torch(gradients, {})


def _train(spec, params, stats):
    """Outputs in training mode and running statistics after the first one; float64 for deep ResNets."""
    wide = spec["name"].startswith(DEEP)
    with jax.enable_x64(wide):
        dtype = np.float64 if wide else np.float32
        graphdef, _, _ = _abstract(spec["name"], dtype)
        params, stats = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, stats))

        @jax.jit
        def step(params, stats, x):
            model = models.merge(graphdef, params, stats)
            return model(x, train=True), models.split(model)[2]

        outputs = {}
        for case, kind in (("train_faint", recipe.faint), ("train", recipe.image)):
            out, after = step(params, stats, jnp.asarray(_nhwc(kind(spec["seed"], 256, 128)), dtype))
            outputs[f"out_{case}_256x128" + ("_f64" if wide and case == "train" else "")] = np.asarray(out)
        return outputs, weights.to_torch({}, after)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in models.names()],
)
def measured(request, fixtures) -> Measured:
    spec, expected = recipe.load(fixtures / "models" / request.param)
    graphdef, params, stats = _abstract(request.param, jnp.float32)
    named = recipe.weights(spec)
    params, stats = weights.from_torch(named, params, stats)
    outputs, permuted, traces, gradients = _evaluate(spec, graphdef, params, stats)
    after = {}
    if spec["n_batchnorm"]:
        trained, after = _train(spec, params, stats)
        outputs |= trained
    return Measured(spec, dict(expected), named, params, stats, outputs, permuted, traces, gradients, after)


def _error(got, expected):
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / expected.std())


def test_weights_have_the_names_and_shapes_of_the_reference(measured):
    entries = {name: (tuple(shape), dtype) for name, shape, dtype, _ in measured.spec["entries"]}
    named = weights.to_torch(measured.params, measured.stats)
    assert {name: (array.shape, array.dtype.name) for name, array in named.items()} == entries
    assert sum(leaf.size for leaf in jax.tree.leaves(measured.params)) == measured.spec["params"]


def test_weights_come_back_unchanged(measured):
    named = weights.to_torch(measured.params, measured.stats)
    for name, array in measured.named.items():
        np.testing.assert_array_equal(named[name], array, err_msg=name)


@pytest.mark.parametrize("case", ["256x128", "128x64", "blocks_256x128", "blocks_128x64", "faint_256x128"])
def test_evaluation(measured, case):
    assert _error(measured.outputs[f"out_{case}"], measured.expected[f"out_{case}"]) < measured.tolerance


@pytest.mark.parametrize("case", ["train_256x128", "train_faint_256x128"])
def test_training(measured, case):
    if not measured.spec["n_batchnorm"]:
        pytest.skip("without BatchNorm training is evaluation")
    wide = f"out_{case}_f64" in measured.outputs
    got, expected = (tree[f"out_{case}" + "_f64" * wide] for tree in (measured.outputs, measured.expected))
    # Where ours is exact and the reference is not, the reference's own rounding error comes on top.
    rounding = measured.spec["outputs"][case]["fp32_error_over_std"] if measured.spec["name"].startswith(DEEP) else 0
    assert _error(got, expected) < measured.tolerance + (0 if wide else rounding)


def test_running_statistics(measured):
    for i, layer in enumerate(measured.spec["bn_recorded"] if measured.spec["n_batchnorm"] else []):
        for name in ("running_mean", "running_var"):
            got, expected = measured.stats_after[f"{layer}.{name}"], measured.expected[f"bn{i}_{name}_after"]
            assert _error(got, expected) < measured.tolerance, f"{layer}.{name}"


def test_difference_of_two_images(measured):
    """White noise gives nearly equal pooled features, so that a common offset could hide an error."""
    if not measured.spec["name"].startswith("resnet"):
        pytest.skip("for average pooling of rectified features")
    for case in ("out_256x128", "out_blocks_256x128"):
        got, expected = (tree[case][0] - tree[case][1] for tree in (measured.outputs, measured.expected))
        assert _error(got, expected) < measured.tolerance, case


def test_gradient_norms(measured):
    got = [np.linalg.norm(measured.gradients[name].astype(np.float64)) for name in measured.spec["grad_params"]]
    np.testing.assert_allclose(got, measured.expected["grad_l2_eval"], rtol=1e-3)


def test_gradient_elements(measured):
    for i, name in enumerate(measured.spec["grad_params"]):
        gradient, expected = measured.gradients[name], measured.expected["grad_first8_eval"][i]
        got = np.resize(np.append(gradient.ravel()[:8], np.zeros(8)), 8)
        typical = measured.expected["grad_l2_eval"][i] / np.sqrt(gradient.size)
        share = 2e-2 if measured.spec["name"].startswith(RECTIFIED) else 1e-3
        np.testing.assert_allclose(got, expected, rtol=0, atol=share * typical, err_msg=name)


def test_gradient_reaches_every_parameter(measured):
    without = {name for name, gradient in measured.gradients.items() if not np.any(gradient)}
    assert without == set(measured.spec["params_without_gradient"])


def test_order_of_images_does_not_matter(measured):
    straight = np.concatenate([measured.outputs["out_128x64"], measured.outputs["out_blocks_128x64"]])
    assert _error(measured.permuted[::-1], straight) < 1e-5


def test_one_trace_per_shape(measured):
    assert measured.traces == [(4, 128, 64, 3), (4, 256, 128, 3)]

"""The projection head against the authors' code, and its corner cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models.layers import l2_normalize
from cion_jax.tasks.distill.head import Head
from cion_jax.weights import torch_names
from tests import recipe

CASES = ("recipe", "weight_g_one")


def _head(dtype=jnp.float32):
    return Head(384, 1024, dtype=dtype, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def measured(fixtures):
    """Per case: intermediate and final outputs, gradients; beside the fixture."""
    spec, expected = recipe.load(fixtures / "head")
    graphdef, params, stats = models.split(_head())
    x = np.random.default_rng([spec["seed"], 384]).standard_normal((12, 384)).astype(np.float32)
    g = np.random.default_rng([spec["seed"], 7]).standard_normal((12, 1024)).astype(np.float32)

    @jax.jit
    def run(params, x):
        def loss(params, x):
            head = models.merge(graphdef, params, stats)
            embedding, out = head.embed(x), head(x)
            return (out * g).sum(), (out, embedding, l2_normalize(embedding))

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    results = {}
    for case in CASES:
        named = recipe.weights(spec)
        if case == "weight_g_one":
            named["last_layer.weight_g"] = np.ones_like(named["last_layer.weight_g"])
        results[case] = run(torch_names.from_torch(named, params, stats)[0], x)
    return spec, expected, results


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_outputs(measured, case):
    spec, expected, results = measured
    (_, _), (out, embedding, normalized) = results[case]
    np.testing.assert_allclose(out, expected[f"out_{case}"], rtol=0, atol=1e-5 * spec["out_std"])
    np.testing.assert_allclose(embedding, expected["mlp_out"], rtol=0, atol=1e-5 * expected["mlp_out"].std())
    np.testing.assert_allclose(normalized, expected["bottleneck_normalised"], rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_gradients(measured, case):
    spec, expected, results = measured
    (gradients, grad_x), _ = results[case]
    reference = expected[f"grad_x_{case}"]
    np.testing.assert_allclose(grad_x, reference, rtol=0, atol=1e-5 * reference.std())
    named = torch_names.to_torch(gradients, {})
    norms = [np.linalg.norm(named[name].astype(np.float64)) for name in spec[f"grad_params_{case}"]]
    np.testing.assert_allclose(norms, expected[f"grad_l2_{case}"], rtol=1e-5)


def test_logits_are_cosines_at_the_start():
    head = _head()
    x = np.random.default_rng(0).standard_normal((4, 384)).astype(np.float32)
    z = np.asarray(head.embed(x))
    v = np.asarray(head.last_layer.weight_v[...])
    cosines = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ (v / np.linalg.norm(v, axis=0))
    np.testing.assert_allclose(head(x), cosines, atol=1e-6)


def test_logits_are_float32_under_bfloat16():
    x = np.random.default_rng(0).standard_normal((4, 384)).astype(np.float32)
    out, wide = _head(jnp.bfloat16)(x), _head()(x)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, wide, atol=0.02)


def test_a_row_of_zeros_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: l2_normalize(x).sum())(jnp.zeros((1, 8)))
    assert value == 0
    assert np.all(np.isfinite(gradient))


def test_rows_shorter_than_the_floor_are_divided_by_it():
    np.testing.assert_allclose(l2_normalize(jnp.array([[3e-13, 4e-13]])), [[0.3, 0.4]], rtol=1e-5)


def test_last_layer_shards_over_prototypes():
    """Sharded over the prototypes, logits are the same and need no communication."""
    head = _head()
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    shard = jax.NamedSharding(mesh, jax.P(None, "model"))
    graphdef, params, stats = models.split(head)
    sharded = params | {"last_layer": jax.device_put(params["last_layer"], shard)}
    x = np.random.default_rng(0).standard_normal((4, 384)).astype(np.float32)
    call = jax.jit(lambda params, x: models.merge(graphdef, params, stats)(x), out_shardings=shard)
    text = call.lower(sharded, x).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all"))
    np.testing.assert_allclose(call(sharded, x), head(x), atol=1e-6)

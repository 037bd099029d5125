"""Both spellings of the depthwise convolution against each other's definition: XLA's grouped convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.models.depthwise import Depthwise, depthwise


def _grouped(x, kernel, stride, groups):
    half = len(kernel) // 2
    pads = ((half, half), (half, half))
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=layout, feature_group_count=groups
    )


@pytest.mark.parametrize(
    ("batch", "height", "width", "kernel", "stride"),
    [(2, 8, 4, 7, 1), (3, 9, 6, 3, 1), (16, 5, 7, 5, 2), (2, 9, 8, 3, 2), (2, 4, 2, 1, 2), (1, 10, 7, 7, 3)],
)
def test_equals_the_grouped_convolution_with_both_gradients(batch, height, width, kernel, stride):
    rng = np.random.default_rng(kernel)
    x = rng.standard_normal((batch, height, width, 3)).astype(np.float32)
    taps = rng.standard_normal((kernel, kernel, 1, 3)).astype(np.float32)
    want, pull = jax.vjp(lambda x, k: _grouped(x, k, stride, 3), x, taps)
    got, own_pull = jax.vjp(lambda x, k: depthwise(x, k, stride), x, taps)
    gradient = rng.standard_normal(want.shape).astype(np.float32)
    for a, b in zip((got, *own_pull(gradient)), (want, *pull(gradient)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_other_platforms_get_a_plain_convolution():
    x, taps = jnp.ones((2, 8, 4, 3)), jnp.ones((3, 3, 1, 3))
    step = jax.jit(jax.grad(lambda x, k: depthwise(x, k, 1).sum(), (0, 1)))
    lowered = {p: step.trace(x, taps).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu", "cuda")}
    assert {p: "stablehlo.convolution" in text for p, text in lowered.items()} == {
        "cpu": False,
        "tpu": True,
        "cuda": True,
    }


def test_layer_with_a_multiplier_in_bfloat16():
    layer = Depthwise(4, 3, 2, multiplier=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(8.0)
    x = jax.random.normal(jax.random.key(1), (2, 6, 4, 4)).astype(jnp.bfloat16)
    got = layer(x)
    want = _grouped(x.astype(jnp.float32), layer.kernel[...], 2, 4) + jnp.arange(8.0)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.05)

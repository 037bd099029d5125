"""Products of 8-bit numbers, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax.models import fp8
from cion_jax.models.layers import Linear


def test_rows_are_quantized_by_hand():
    """Between 2^n and 2^(n + 1) there are 8 numbers: 17 lies between 16 and 18 and goes to the even one, as does 19."""
    x = jnp.array([[448.0, 17.0, 19.0, -1.0], [0.0, 0.0, 0.0, 0.0], [1.0, -2.0, 448 / 224, 2 / 7 / 64]])
    found, factor = fp8.quantized(x, 1)
    assert found.dtype == jnp.float8_e4m3fn
    np.testing.assert_array_equal(factor, np.float32([[1], [1], [2 / 448]]))
    np.testing.assert_array_equal(np.float32(found), [[448, 16, 20, -1], [0, 0, 0, 0], [224, -448, 448, 1]])


def test_a_product_by_hand():
    """Rows of factors 1 and 2, columns of 1 and 1/4: (448 16 + 17 -> 16) and so on, rounded before, not behind."""
    x = jnp.array([[448.0, 17.0], [2 * 448.0, 2 * 19.0]])
    kernel = jnp.array([[448.0, 1.0], [17.0, 112.0]])
    # Quantized: x [[448, 16], [448, 20]] by (1, 2), kernel [[448, 4], [16, 448]] by (1, 1/4).
    expected = [[448 * 448 + 16 * 16, 448 * 1 + 16 * 112], [2 * (448 * 448 + 20 * 16), 2 * (448 * 1 + 20 * 112)]]
    np.testing.assert_array_equal(fp8.product(x, kernel), np.float32(expected))


def test_gradients_by_hand():
    """That of the input is a product of quantized numbers, that of the kernel of the numbers themselves."""
    x, kernel = jnp.array([[1.0, 17.0], [3.0, 19.0]]), jnp.array([[448.0, 17.0], [1.0, 112.0]])
    g = jnp.array([[448.0, 17.0], [0.0, 1.0]])
    of_x, of_kernel = jax.vjp(fp8.product, x, kernel)[1](g)
    # Rows of g: [448, 16] by 1, [0, 448] by 1/448. Rows of the kernel: [448, 16] by 1, [4, 448] by 1/4.
    np.testing.assert_allclose(of_x, [[448 * 448 + 16 * 16, 448 * 1 + 16 * 112], [16, 112]], rtol=1e-6)
    np.testing.assert_array_equal(of_kernel, np.asarray(x).T @ np.asarray(g))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_rounding_costs(dtype):
    """A number is off by 1/16 at most: by 2^-3 / 12^0.5 of its power of two, 2.5% of its size in the mean. A product of
    two is off by 3.5%, which a sum of random signs keeps. Rows of very different size do not disturb each other."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 256)) * np.logspace(-6, 6, 64)[:, None]
    x, kernel = jnp.asarray(x, dtype), jnp.asarray(rng.standard_normal((256, 32)), dtype)
    found = fp8.product(x, kernel)
    assert found.dtype == dtype
    left, right = np.float64(x), np.float64(kernel)
    error = np.float64(found) - left @ right
    assert np.all(np.abs(error) <= (2 / 16 + 1 / 256 + 2**-8) * np.abs(left) @ np.abs(right))
    mean = np.sqrt(np.mean(np.square(error) / (np.square(left) @ np.square(right)), axis=1))
    assert mean.min() > 0.02
    assert mean.mean() == pytest.approx(0.035, abs=0.003)
    assert mean.max() < 0.06
    values, factors = fp8.quantized(x, 1)
    error = np.abs(np.float32(values) * factors - np.float32(x))
    assert np.all(error <= np.maximum(np.abs(np.float32(x)) / 16, factors * 2**-10))


def test_a_layer_adds_its_bias_unrounded():
    kw = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    layer, plain = fp8.Fp8Linear(4, 3, **kw), Linear(4, 3, **kw)
    layer.kernel, layer.bias = plain.kernel, nnx.Param(jnp.array([17.0, 0.1, 0.0]))
    x = jnp.arange(24.0).reshape(2, 3, 4)
    expected = fp8.product(x.reshape(6, 4), plain.kernel[...]).reshape(2, 3, 3) + layer.bias[...]
    np.testing.assert_array_equal(layer(x), expected)
    assert layer(x)[0, 0].shape == (3,)

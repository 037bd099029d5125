"""Max pooling: by hand, and its gradient on a CPU against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.models import pooling


def test_pads_with_minus_infinity():
    x = -jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(pooling.max_pool(x, 3, 2, 1)[0, ..., 0], [[-1, -2], [-5, -6]])


@pytest.mark.parametrize(
    ("height", "width", "settings"),
    [(8, 6, (3, 2, 1)), (9, 8, (3, 2, 1)), (9, 9, (2, 2, 0)), (7, 5, (3, 1, 1)), (10, 9, (3, 3, 0)), (7, 7, (5, 2, 2))],
)
def test_the_gradient_is_xlas_own_equal_pixels_included(height, width, settings):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 4, (2, height, width, 3)), jnp.float32)
    y, pull = jax.vjp(lambda x: pooling.max_pool(x, *settings), x)
    gradient = rng.standard_normal(y.shape).astype(np.float32)
    own = pooling._xlas(x, gradient, **dict(zip(("window", "stride", "padding"), settings, strict=True)))
    np.testing.assert_allclose(pull(gradient)[0], own, rtol=0, atol=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_only_a_cpu_gets_another_gradient(platform):
    step = jax.jit(jax.grad(lambda x: pooling.max_pool(x, 3, 2, 1).sum()))
    program = step.trace(jnp.ones((2, 8, 4, 3))).lower(lowering_platforms=(platform,)).as_text()
    assert ("select_and_scatter" in program) == (platform != "cpu")

"""Shared layers: hand-computed values and invariants."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models.activations import gelu
from cion_jax.models.layers import (
    IBN,
    BatchNorm,
    Conv,
    Layers,
    drop_path,
    drop_path_rates,
    resize_positions,
)

KW = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}


def test_batch_norm_normalizes_by_the_biased_and_tracks_the_unbiased_variance():
    norm = BatchNorm(1, eps=0.0, **KW)
    y = norm(jnp.array([[1.0], [3.0]]), train=True)  # mean 2, variance 1 biased, 2 unbiased
    np.testing.assert_allclose(y, [[-1], [1]], rtol=1e-6)
    np.testing.assert_allclose(norm.mean[...], [0.2], rtol=1e-6)  # 0.9 * 0 + 0.1 * 2
    np.testing.assert_allclose(norm.var[...], [1.1], rtol=1e-6)  # 0.9 * 1 + 0.1 * 2


def test_batch_norm_evaluates_by_its_running_statistics():
    norm = BatchNorm(1, eps=0.0, **KW)
    norm.mean[...], norm.var[...] = jnp.array([1.0]), jnp.array([4.0])
    norm.scale[...], norm.bias[...] = jnp.array([3.0]), jnp.array([5.0])
    np.testing.assert_allclose(norm(jnp.array([[5.0]]), train=False), [[11]], rtol=1e-6)  # (5 - 1) / 2 * 3 + 5


def test_batch_norm_takes_its_statistics_over_a_sharded_batch():
    x = np.random.default_rng(0).standard_normal((16, 4, 2, 3)).astype(np.float32) * 3 + 1
    graphdef, params, stats = models.split(BatchNorm(3, **KW))

    @jax.jit
    def step(params, stats, x):
        norm = models.merge(graphdef, params, stats)
        return norm(x, train=True), models.split(norm)[2]

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
    for ours, one in zip(
        jax.tree.leaves(step(params, stats, sharded)), jax.tree.leaves(step(params, stats, x)), strict=True
    ):
        np.testing.assert_allclose(ours, one, atol=1e-5)


def test_ibn_treats_its_halves_differently():
    """Per image the first half is normalized, the second only over the batch."""
    x = np.stack([np.zeros((4, 4, 4)), np.full((4, 4, 4), 2.0)]).astype(np.float32)
    x += np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    y = np.asarray(IBN(4, **KW)(x, train=True))
    np.testing.assert_allclose(y[..., :2].mean((1, 2)), 0, atol=1e-5)
    assert np.all(y[0, ..., 2:].mean((0, 1)) < -0.5)
    np.testing.assert_allclose(y[..., 2:].mean((0, 1, 2)), 0, atol=1e-5)


def test_statistics_are_float32_under_bfloat16():
    norm = BatchNorm(1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = (100 + np.random.default_rng(0).integers(0, 2, (512, 1))).astype(jnp.bfloat16)
    y = norm(x, train=True)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == jnp.float32
    assert abs(float(y.astype(jnp.float32).mean())) < 5e-3


def test_numbered_layers_keep_numeric_order_and_gaps():
    class Tag(nnx.Module):
        def __init__(self, number):
            self.number, self.weight = number, nnx.Param(jnp.zeros(1))

    layers = Layers({number: Tag(number) for number in (0, 2, 10, 1)})
    graphdef, params, stats = models.split(layers)
    assert set(params) == {"0", "1", "2", "10"}
    assert [layer.number for layer in models.merge(graphdef, params, stats)] == [0, 1, 2, 10]


def test_gelu_and_its_gradient():
    x = jnp.linspace(-6.0, 6.0, 101)
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    density = np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(gelu(x), x * cdf, atol=5e-7)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), cdf + x * density, atol=5e-7)


@pytest.mark.parametrize(("height", "patches"), [(8, 2), (9, 2)])
def test_a_convolution_over_patches_is_a_product(height, patches):
    """At 9 pixels the last row belongs to no patch: PyTorch's convolution leaves it out."""
    conv = Conv(3, 5, 4, 4, **KW)
    x = np.random.default_rng(0).standard_normal((2, height, 4, 3)).astype(np.float32)
    kernel = np.asarray(conv.kernel[...])
    expected = [[(x[b, 4 * i : 4 * i + 4, :, :, None] * kernel).sum((0, 1, 2)) for i in range(2)] for b in range(2)]
    np.testing.assert_allclose(conv(x)[:, :, 0], expected, atol=1e-5)
    assert conv(x).shape == (2, patches, 1, 5)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 3))
    y = np.asarray(drop_path(x, 0.25, train=True, key=jax.random.key(0)))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.all(y == y[:, :1, :1])
    assert abs(y.mean() - 1) < 0.03


def test_drop_path_does_nothing_in_evaluation_and_at_rate_0():
    x = jnp.ones((4, 3))
    assert drop_path(x, 0.5, train=False, key=None) is x
    assert drop_path(x, 0.0, train=True, key=None) is x


def test_drop_path_asks_for_a_key():
    with pytest.raises(ValueError, match="key"):
        drop_path(jnp.ones((4, 3)), 0.5, train=True, key=None)


def test_drop_path_rates_rise_linearly():
    assert drop_path_rates(0.2, 3) == [0, 0.1, 0.2]
    assert drop_path_rates(0.2, 1) == [0]


def test_resized_positions_of_the_same_size_are_untouched():
    x = jnp.arange(24.0).reshape(1, 2, 3, 4)
    assert resize_positions(x, 2, 3) is x


def test_resized_positions_keep_constants_and_interior_slopes():
    """Bicubic weights sum to 1 and reproduce a ramp where no sample is clamped."""
    ramp = jnp.broadcast_to(jnp.arange(16.0)[None, :, None, None], (1, 16, 8, 1))
    y = np.asarray(resize_positions(ramp, 8, 4))[0, :, :, 0]
    source = (np.arange(8) + 0.5) * 16 / 8.1 - 0.5
    np.testing.assert_allclose(y[1:-1], np.repeat(source[1:-1, None], 4, 1), atol=0.13)
    np.testing.assert_allclose(resize_positions(jnp.ones((1, 16, 8, 2)), 8, 4), 1, atol=1e-6)

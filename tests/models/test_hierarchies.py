"""Swin, ConvNeXt and VOLO beyond the reference's sizes and settings, in miniature."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models import convnext, swin
from cion_jax.models.swin import Swin
from cion_jax.models.volo import VOLO

TINY = {
    "swin": partial(Swin, (2,), 32),
    "convnext": partial(convnext.ConvNeXt, (1, 1), (8, 8), convnext._block),
    "volo": partial(VOLO, (1, 1), 64),
}
FULL = ["swin_tiny", "convnext_tiny", "volo_d1"]


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 32, 32, 3))


def _loss(build):
    """Function of (params, images, key) of a model in training, and its parameters."""
    graphdef, params, stats = models.split(build(rngs=nnx.Rngs(0)))

    def loss(params, images, key):
        return jnp.sin(3 * models.merge(graphdef, params, stats)(images, train=True, key=key)).sum()

    return loss, params


@pytest.mark.parametrize("name", FULL)
def test_any_size_in_bfloat16_with_float32_parameters(name):
    model = nnx.eval_shape(lambda: models.create(name, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    graphdef, params, stats = models.split(model)
    for size in ((384, 128), (224, 224)):
        forward = partial(jax.eval_shape, lambda p, s, x: models.merge(graphdef, p, s)(x), params, stats)
        out = forward(jax.ShapeDtypeStruct((2, *size, 3), jnp.float32))
        assert (out.shape, out.dtype) == ((2, model.features), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", TINY)
def test_recomputing_activations_changes_no_gradient(name, images):
    losses = [_loss(partial(TINY[name], drop_path=0.5, remat=remat)) for remat in (False, True)]
    kept, recomputed = (jax.jit(jax.grad(loss))(params, images, jax.random.key(1)) for loss, params in losses)
    for got, expected in zip(jax.tree.leaves(recomputed), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", TINY)
def test_stochastic_depth_draws_from_the_key(name, images):
    loss, params = _loss(partial(TINY[name], drop_path=0.5))
    with pytest.raises(ValueError, match="key"):
        jax.eval_shape(loss, params, images, None)
    once, again, other = (jax.jit(loss)(params, images, jax.random.key(seed)) for seed in (1, 1, 2))
    assert once == again != other


def test_swin_drops_paths_as_the_reference_does():
    model = nnx.eval_shape(lambda: models.create("swin_tiny", rngs=nnx.Rngs(0)))
    rates = [block.rate for stage in model.layers for block in stage.blocks]
    np.testing.assert_allclose(rates, 0.1 * np.arange(12) / 11, rtol=1e-12)


def test_a_shift_of_a_single_window_separates_its_quadrants():
    (mask_NN,) = swin._shift_mask(8, 8)
    row, column = np.divmod(np.arange(64), 8)
    quadrant = 2 * (row // 4) + column // 4
    np.testing.assert_array_equal(mask_NN == 0, quadrant[:, None] == quadrant)


def test_a_shift_leaves_windows_away_from_the_border_whole():
    mask_MNN = swin._shift_mask(16, 24)
    assert mask_MNN.shape == (6, 64, 64)
    assert [not window.any() for window in mask_MNN] == [True, True, False, False, False, False]

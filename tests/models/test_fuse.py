"""Fused backbones compute what the trained ones do; folding by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models import fuse, layers
from cion_jax.models.depthwise import Depthwise
from cion_jax.weights import torch_names
from tests import recipe, toy
from tests.miniatures import MINIATURES

WITH_NORMS = ("fastvit", "ghostnet", "osnet", "repvit", "resnet", "vit", "volo")


def _random(build):
    """Module whose every weight and statistic is far from where it starts."""
    graphdef, params, stats = models.split(nnx.eval_shape(build))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name, noise = path[-1].key, rng.standard_normal(leaf.shape)
        if name == "var":
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        if name == "kernel":
            return np.float32(noise * np.sqrt(1 / np.prod(leaf.shape[:-1])))
        return np.float32((name in ("scale", "layer_scale")) + 0.1 * noise)

    return models.merge(graphdef, *jax.tree_util.tree_map_with_path(draw, (params, stats)))


def _evaluate(module, images):
    graphdef, *trees = models.split(module)
    return np.asarray(jax.jit(lambda trees, x: models.merge(graphdef, *trees)(x))(trees, images))


def _reference(name, fixtures):
    """A backbone with the weights behind its reference numbers: random ones grow or vanish through so many blocks."""
    spec, _ = recipe.load(fixtures / "models" / name)
    abstract = nnx.eval_shape(lambda: models.create(name, dtype=jnp.float64, rngs=nnx.Rngs(0)))
    graphdef, params, stats = models.split(abstract)
    return models.merge(graphdef, *torch_names.from_torch(recipe.weights(spec), params, stats))


def _compare(module):
    """In float64, so that nothing counts but the rounding of the fused weights; no norm with statistics is left."""
    images = np.random.default_rng(1).standard_normal((2, 64, 32, 3))
    fused = fuse.fuse(module)
    got, expected = _evaluate(fused, images), _evaluate(module, images)
    assert np.abs(got - expected).max() < 1e-5 * expected.std()
    assert not jax.tree.leaves(models.split(fused)[2])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(models.split(fused)[1])} == {"float32"}


@pytest.mark.parametrize("name", [name for name in MINIATURES if name.split("_")[1] in WITH_NORMS])
def test_a_fused_family_computes_the_same(name):
    with jax.enable_x64():
        _compare(_random(lambda: MINIATURES[name](dtype=jnp.float64, rngs=nnx.Rngs(0))))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in toy.PUBLISHED if name.startswith(WITH_NORMS)])
def test_a_fused_backbone_computes_the_same(name, fixtures):
    with jax.enable_x64():
        _compare(_reference(name, fixtures))


def test_a_norm_behind_a_convolution_by_hand():
    """1x1, y = 3x + 1, then mean 4, variance 9, scale 2, bias 5: y = 2 (3x + 1 - 4) / 3 + 5 = 2x + 3."""
    kw = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    pair = layers.Layers([layers.Conv(1, 1, 1, **kw), layers.BatchNorm(1, eps=0.0, **kw)])
    pair[0].kernel[...], pair[0].bias[...] = jnp.full((1, 1, 1, 1), 3.0), jnp.array([1.0])
    for name, value in {"mean": 4.0, "var": 9.0, "scale": 2.0, "bias": 5.0}.items():
        getattr(pair[1], name)[...] = jnp.array([value])
    fused = fuse.fuse(pair)
    assert (pair[0].kernel[...].item(), pair[1].mean[...].item()) == (3, 4)
    with pytest.raises(ValueError, match="a fused backbone cannot train"):
        fused[1](jnp.ones((1, 1, 1, 1)), train=True)
    np.testing.assert_allclose([fused[0].kernel[...].item(), fused[0].bias[...].item()], [2, 3], rtol=1e-6)


def test_branches_add_around_the_center():
    small, large = np.full((1, 1, 1, 2), 5.0), np.arange(18.0).reshape(3, 3, 1, 2)
    total = fuse.added(fuse.Taps(large, np.array([1.0, 2.0])), fuse.Taps(small, np.array([10.0, 20.0])))
    np.testing.assert_array_equal(total.bias, [11, 22])
    np.testing.assert_array_equal((total.kernel - large)[:, :, 0, 1], [[0, 0, 0], [0, 5, 0], [0, 0, 0]])


@pytest.mark.parametrize("kind", [layers.Conv, Depthwise])
def test_identity_returns_its_input(kind):
    conv = kind(3, *([3] if kind is layers.Conv else []), 3, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((1, 4, 5, 3)).astype(np.float32)
    fuse.set_taps(conv, fuse.identity(fuse.taps(conv)))
    np.testing.assert_allclose(conv(x), x, rtol=1e-6)

"""Backbones by name, as plain trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models.resnet import BasicBlock, ResNet
from cion_jax.models.vit import ViT

IMAGES = np.random.default_rng(0).standard_normal((2, 64, 32, 3)).astype(np.float32)


def _create(name, **kw):
    return models.create(name, rngs=nnx.Rngs(0), **kw)


def _resnet(**kw):
    return ResNet(BasicBlock, (1, 1, 1, 1), ibn=True, rngs=nnx.Rngs(0), **kw)


def _vit(**kw):
    return ViT(48, 3, depth=3, rngs=nnx.Rngs(0), **kw)


def _trees(build):
    """Structure and random weights, in one compilation."""
    graphdef, *_ = models.split(nnx.eval_shape(build))
    return graphdef, *jax.jit(lambda: models.split(build())[1:])()


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'resnet18_ibn'"):
        _create("resnet18-ibn")


def test_drop_path_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="resnet18 has no stochastic depth"):
        _create("resnet18", drop_path=0.1)
    nnx.eval_shape(lambda: _create("resnet18", drop_path=0.0))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_drop_path_is_a_share(rate):
    with pytest.raises(ValueError, match="drop_path is a share"):
        _create("vit_tiny", drop_path=rate)


def test_trees_are_plain_dicts_with_string_keys():
    def check(tree):
        assert type(tree) is dict
        for key, value in tree.items():
            assert type(key) is str
            if not isinstance(value, jax.ShapeDtypeStruct):
                check(value)

    _, params, stats = models.split(nnx.eval_shape(_resnet))
    check(params)
    check(stats)
    assert params["layer2"]["0"]["downsample"]["0"]["kernel"].shape == (1, 1, 64, 128)


@pytest.mark.parametrize("name", ["resnet18_ibn", "vit_tiny", "osnet_x0_25"])
def test_every_parameter_is_float32_whatever_the_arithmetic(name):
    """Of the other families where they take a square: `test_hierarchies`, `test_mobile`."""
    _, params, stats = models.split(nnx.eval_shape(lambda: _create(name, dtype=jnp.bfloat16)))
    assert {leaf.dtype.name for leaf in jax.tree.leaves((params, stats))} == {"float32"}


def test_bfloat16_is_close_to_float32():
    wide_def, params, stats = _trees(_resnet)
    narrow_def, *_ = models.split(nnx.eval_shape(lambda: _resnet(dtype=jnp.bfloat16)))
    wide, narrow = (
        jax.jit(lambda params, g=graphdef: models.merge(g, params, stats)(IMAGES))(params)
        for graphdef in (wide_def, narrow_def)
    )
    assert narrow.dtype == jnp.bfloat16
    assert narrow.shape == wide.shape == (2, 512)
    assert float(jnp.abs(narrow.astype(jnp.float32) - wide).max() / wide.std()) < 0.1


@pytest.mark.parametrize("build", [_resnet, lambda **kw: _vit(drop_path=0.3, **kw)], ids=["resnet", "vit"])
def test_recomputing_activations_changes_nothing(build):
    """Same output, gradient and running statistics; and the gradient does hold recomputation. In float64, since the
    compiler may add up in another order, and in float32 that shows."""
    _, *trees = _trees(build)

    def step(remat):
        graphdef, *_ = models.split(nnx.eval_shape(lambda: build(remat=remat, dtype=jnp.float64)))

        def loss(params, stats):
            model = models.merge(graphdef, params, stats)
            out = model(IMAGES.astype(np.float64), train=True, key=jax.random.key(0))
            return jnp.square(out).sum(), (out, models.split(model)[2])

        return jax.grad(loss, has_aux=True)

    with jax.enable_x64(True):
        params, stats = jax.tree.map(lambda x: np.asarray(x, np.float64), trees)
        assert "remat" in str(jax.make_jaxpr(step(True))(params, stats))
        plain, again = (jax.jit(step(remat))(params, stats) for remat in (False, True))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * float(np.abs(a).max()))
    updated, initial = (jax.tree.leaves(tree) for tree in (again[1][1], stats))
    assert not any(np.array_equal(new, old) for new, old in zip(updated, initial, strict=True))


def test_stochastic_depth_follows_its_key():
    graphdef, params, stats = _trees(lambda: _vit(drop_path=0.5))
    call = jax.jit(lambda key: models.merge(graphdef, params, stats)(IMAGES, train=True, key=key))
    outputs = [np.asarray(call(jax.random.key(seed))) for seed in (0, 0, 1, 2, 3)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.abs(np.stack(outputs) - outputs[0]).max() > 0.01

"""EdgeNeXt, GhostNet, RepViT and FastViT beyond the reference's sizes and settings, and their parts by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models import edgenext, fastvit, ghostnet, layers, mobile, repvit

KW = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}
BLOCKS = {
    "edgenext": lambda rate: edgenext.SDTAEncoder(8, 2, 2, True, rate, **KW),
    "fastvit_mixer": lambda rate: fastvit.RepMixerBlock(8, rate, **KW),
    "fastvit_attention": lambda rate: fastvit.AttentionBlock(32, rate, **KW),
    "ghostnet": lambda rate: ghostnet.GhostBottleneck(8, 3, 16, 8, True, 2, **KW),
    "repvit": lambda rate: repvit.Block(8, True, **KW),
}


def _images(channels):
    return jax.random.normal(jax.random.key(0), (4, 8, 4, channels))


@pytest.mark.parametrize("name", ["edgenext_x_small", "ghostnet_0_5", "repvit_m0_9", "fastvit_s12"])
def test_a_square_in_bfloat16_with_float32_parameters(name):
    model = nnx.eval_shape(lambda: models.create(name, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    graphdef, params, stats = models.split(model)
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    out = jax.eval_shape(lambda p, s, x: models.merge(graphdef, p, s)(x), params, stats, images)
    assert (out.shape, out.dtype) == ((2, model.features), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", BLOCKS)
def test_recomputing_activations_changes_neither_gradients_nor_statistics(name):
    graphdef, params, stats = models.split(BLOCKS[name](0.5))
    x = _images(32 if name == "fastvit_attention" else 8)

    def loss(params, remat):
        block = models.merge(graphdef, params, stats)
        y = layers.run([block], x, train=True, key=jax.random.key(1), remat=remat)
        return jnp.sin(3 * y).sum(), models.split(block)[2]

    differentiate = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    for got, expected in zip(differentiate(params, True), differentiate(params, False), strict=True):
        # BatchNorm makes some gradients cancel to nothing but rounding errors of the others.
        largest = max((np.abs(leaf).max() for leaf in jax.tree.leaves(expected)), default=0)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * largest), got, expected)


@pytest.mark.parametrize("name", ["edgenext", "fastvit_mixer", "fastvit_attention"])
def test_stochastic_depth_at_nearly_one_leaves_the_shortcut(name):
    block, x = BLOCKS[name](1 - 1e-7), _images(32 if name == "fastvit_attention" else 8)
    graphdef, params, stats = models.split(block)

    @jax.jit
    def train(params, stats, x, key):
        block = models.merge(graphdef, params, stats)
        shortcut = block.token_mixer(x, train=True) if name == "fastvit_mixer" else x
        return block(x, train=True, key=key), shortcut

    with pytest.raises(ValueError, match="key"):
        train(params, stats, x, None)
    np.testing.assert_allclose(*train(params, stats, x, jax.random.key(1)), atol=1e-6)


@pytest.mark.parametrize("name", ["ghostnet_0_5", "repvit_m0_9"])
def test_drop_path_is_refused_where_there_is_none(name):
    with pytest.raises(ValueError, match="has no stochastic depth"):
        models.create(name, drop_path=0.1, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "last"),
    [("edgenext_x_small", lambda m: m.stages[3][2]), ("fastvit_s12", lambda m: m.network[6][1])],
)
def test_drop_path_rises_to_the_last_block(name, last):
    model = nnx.eval_shape(lambda: models.create(name, drop_path=0.1, rngs=nnx.Rngs(0)))
    assert last(model).rate == 0.1


@pytest.mark.parametrize(("width", "expected"), [(20.8, 20), (62.4, 64), (14, 16), (9, 12), (1, 4)])
def test_widths_are_multiples_that_lose_at_most_a_tenth(width, expected):
    assert mobile.multiple(width) == expected


def test_squeeze_and_excite_scales_channels_by_the_gate_of_their_means():
    layer = mobile.SqueezeExcite(2, 1, jax.nn.sigmoid, **KW)
    layer.conv_reduce.kernel[...] = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    layer.conv_expand.kernel[...] = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)
    x = jnp.array([[1.0, 4.0], [5.0, 8.0]]).reshape(
        1, 1, 2, 2
    )  # the first channel's mean is 3, the gate of the other 1/2
    gate = 1 / (1 + np.exp(-3))
    np.testing.assert_allclose(layer(x).reshape(2, 2), [[gate, 2], [5 * gate, 4]], rtol=1e-6)


def test_cascade_adds_each_group_to_the_next_and_leaves_the_last():
    encoder = edgenext.SDTAEncoder(5, 1, 3, False, 0.0, **KW)  # groups of 2, 2 and 1 channels
    for conv in encoder.convs:
        conv.kernel[...] = jnp.zeros((3, 3, 1, 2)).at[1, 1].set(1)
    x = jnp.array([1.0, 2, 30, 40, 500]).reshape(1, 1, 1, 5)
    np.testing.assert_allclose(encoder._cascade(x).ravel(), [1, 2, 31, 42, 500])


def test_positional_code_turns_once_over_the_image_at_its_first_frequency():
    np.testing.assert_allclose(edgenext._waves(4)[:, :2], [[1, 0], [0, -1], [-1, 0], [0, 1]], atol=1e-5)


def test_channel_attention_ignores_the_order_of_tokens_and_their_scale():
    attention = edgenext.ChannelAttention(8, 2, **KW)
    x, order = _images(8).reshape(4, 32, 8), np.random.default_rng(0).permutation(32)
    np.testing.assert_allclose(attention(x[:, order]), attention(x)[:, order], atol=1e-7)
    np.testing.assert_allclose(attention(2 * x), 2 * attention(x), atol=1e-7)


def test_repvit_starts_with_channel_mixers_that_do_nothing():
    x = _images(8)
    np.testing.assert_array_equal(repvit.ChannelMixer(8, **KW)(x, train=True), x)


def test_no_repvit_block_computes_earlier_ones_again():
    """Fused into one another, four blocks' branches would read 70 arrays at once."""
    graphdef, *trees = models.split(nnx.eval_shape(lambda: repvit.RepViT(16, (4,), rngs=nnx.Rngs(0))))
    evaluate = jax.jit(lambda trees, x: models.merge(graphdef, *trees)(x))
    program = evaluate.lower(trees, jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)).compile().as_text()
    assert max(line.count("%") for line in program.splitlines()) < 30

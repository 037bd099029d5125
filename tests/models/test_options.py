"""Other ways to compute the same network give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.parity_cases import draw
from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.models.activations import gelu, gelu_in_one_pass
from cion_jax.models.layers import LayerNorm
from cion_jax.models.one_pass_norm import OnePassNorm
from cion_jax.models.options import ALL, ON_GPU, OPTIONS, ROUNDED, check_shares
from cion_jax.tasks.distill.network import Network
from tests import miniatures
from tests.runs import assert_equal

miniatures.register()
PADDED = ("padded_tokens", "one_pass_gelu", "one_pass_norm", "joint_views")


def _network(options=(), **changes):
    kw = {"prototypes": 16, "hidden": 16, "bottleneck": 8, "dtype": jnp.float32} | changes
    return models.split(nnx.eval_shape(lambda: Network("toy_vit", options=options, rngs=nnx.Rngs(0), **kw)))


def _computed(options=(), **changes):
    """Embeddings, gradients and running statistics of views of two sizes, of 9 and of 3 tokens with the class token."""
    graphdef, params, stats = _network(options, **changes)
    rng = np.random.default_rng(0)
    views = [rng.standard_normal((2, n, h, w, 3), np.float32) for n, h, w in ((2, 64, 32), (3, 32, 16))]
    aims = rng.standard_normal((2, 5, 8), np.float32)

    @jax.jit
    @jax.value_and_grad
    def loss(params, stats):
        network = models.merge(graphdef, params, stats)
        return jnp.square(network(views, train=True, key=jax.random.key(0))[0] - aims).mean()

    @jax.jit
    def embedded(params, stats):
        network = models.merge(graphdef, params, stats)
        return network(views, train=True, key=jax.random.key(0))[0], models.split(network)[2]

    params, stats = draw(params), draw(stats)
    return *loss(params, stats), *embedded(params, stats)


@pytest.fixture(scope="module")
def plain():
    return _computed()


EQUAL = [(name,) for name in OPTIONS if name not in ROUNDED]


@pytest.mark.parametrize("options", [*EQUAL, ALL, ON_GPU, PADDED], ids="+".join)
def test_an_option_changes_no_number(options, plain):
    found = _computed(options)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain[1]))
    assert_equal(plain[0], found[0], rtol=1e-5)
    assert_equal(plain[1], found[1], atol=1e-5 * max(scale, 1))
    assert_equal(plain[2:], found[2:], atol=1e-5)


def test_products_of_8_bits_change_little(plain):
    """A number keeps 4 bits; over the 16 to 64 terms of a sum half of a rounding's error remains at most."""
    found = _computed(ROUNDED)
    for a, b in zip(jax.tree.leaves(found[2]), jax.tree.leaves(plain[2]), strict=True):
        assert 1e-4 < np.linalg.norm(a - b) / np.linalg.norm(b) < 2**-4
    gradients = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (found[1], plain[1])]
    assert 1e-4 < np.linalg.norm(gradients[0] - gradients[1]) / np.linalg.norm(gradients[1]) < 0.2


def test_an_option_is_compiled_in():
    """Or the test above would compare a thing with itself."""
    x = [jax.ShapeDtypeStruct((2, 1, size, size, 3), jnp.float32) for size in (32, 64)]

    def program(options):
        graphdef, params, stats = _network(options)
        return str(jax.make_jaxpr(lambda p, s, x: models.merge(graphdef, p, s)(x, train=True))(params, stats, x))

    assert len({program(options) for options in ((), *((name,) for name in OPTIONS))}) == 1 + len(OPTIONS)


def test_a_sum_and_its_norm_by_hand():
    """A row of 1 + 0, 2 + 1, 6 - 1 has mean 3 and variance 8 / 3; so has its gradient of one number, by hand."""
    norm = OnePassNorm(3, 0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    norm.bias[...] = jnp.array([0.0, 0.0, 1.0])
    x, branch = jnp.array([1.0, 2.0, 6.0]), jnp.array([0.0, 1.0, -1.0])
    total, y = norm.of_sum(x, branch)
    np.testing.assert_array_equal(total, [1, 3, 5])
    np.testing.assert_allclose(y, [-np.sqrt(1.5), 0, np.sqrt(1.5) + 1], rtol=1e-6)
    # d y_2 / d total = (e_2 - 1/3 - (-s, 0, s) s / 3) / deviation with s^2 = 3/2: (1/6, -1/3, 1/6) by sqrt(3/8).
    gradients = jax.grad(lambda *terms: norm.of_sum(*terms)[1][2] + norm.of_sum(*terms)[0][0], (0, 1))(x, branch)
    expected = np.sqrt(3 / 8) * np.array([1 / 6, -1 / 3, 1 / 6]) + [1, 0, 0]
    for found in gradients:
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_sum_and_its_norm_in_half_precision():
    """As near to float32 as the plain norm is, value and gradients."""
    x, branch, g = (jnp.asarray(np.random.default_rng(i).standard_normal((32, 64))) for i in range(3))

    def computed(kind, dtype):
        norm = kind(64, 1e-6, dtype=dtype, rngs=nnx.Rngs(0))
        terms = x.astype(dtype), branch.astype(dtype)
        value, pull = jax.vjp(lambda *terms: norm.of_sum(*terms), *terms)
        return [np.float32(leaf) for leaf in (*value, *pull((g.astype(dtype), g.astype(dtype))))]

    exact = computed(LayerNorm, jnp.float32)
    plain, found = (computed(kind, jnp.bfloat16) for kind in (LayerNorm, OnePassNorm))
    for a, b, c in zip(exact, plain, found, strict=True):
        assert np.linalg.norm(c - a) < 1.05 * np.linalg.norm(b - a)


def test_the_derivative_in_one_pass_is_that_of_the_value():
    x = jnp.linspace(-9, 9, 20001)
    np.testing.assert_allclose(gelu_in_one_pass(x), gelu(x), atol=1e-6)
    slopes = (jax.vmap(jax.grad(f))(x) for f in (gelu_in_one_pass, gelu))
    np.testing.assert_allclose(*slopes, atol=1e-6)


def test_every_number_of_bfloat16_in_one_pass():
    """Value and derivative are those of float32's error function, rounded; a hair's breadth may decide the rounding."""
    bits = np.arange(2**16, dtype=np.uint16)
    x = jnp.asarray(bits).view(jnp.bfloat16)
    x = x[jnp.isfinite(x)]
    for found, expected in (
        (gelu_in_one_pass(x), gelu(x.astype(jnp.float32))),
        (jax.vmap(jax.grad(gelu_in_one_pass))(x), jax.vmap(jax.grad(gelu))(x.astype(jnp.float32))),
    ):
        rounded = expected.astype(jnp.bfloat16)
        assert np.mean(np.asarray(found == rounded)) > 0.995
        np.testing.assert_allclose(np.float32(found), np.float32(rounded), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("toy_vit", ("fast",), f"options are {', '.join(OPTIONS)}, each once"),
        ("toy_vit", ("joint_views", "joint_views"), "each once"),
        ("toy_vit", ("padded_tokens", "class_token_apart"), "one at most"),
        ("toy_vit", ("three_products", "fp8_products"), "one at most"),
        ("toy_resnet", ("joint_views",), "toy_resnet has no options, got joint_views; leave them out"),
    ],
)
def test_options_that_cannot_be(name, options, message):
    with pytest.raises(ConfigError, match=message):
        models.create(name, options=options, rngs=nnx.Rngs(0))


def test_what_mixes_the_rows_of_images_is_for_one_device():
    """On 16 chips the compiler moved 11 GB of rows between them in a step."""
    check_shares(tuple(OPTIONS), 1)
    check_shares(("padded_tokens", "one_pass_gelu", "one_pass_norm", "fp8_products"), 16)
    for name in ("class_token_apart", "joint_views"):
        with pytest.raises(ConfigError, match=f"{name} is for one device, got 16; leave it out"):
            check_shares((name, "one_pass_gelu"), 16)


@pytest.mark.parametrize("options", [("joint_views",), ("class_token_apart",)], ids="+".join)
def test_stochastic_depth_drops_whole_images_of_every_size(options):
    graphdef, params, stats = models.split(
        nnx.eval_shape(lambda: models.create("toy_vit", options=options, rngs=nnx.Rngs(0)))
    )
    views = [np.ones((64, size, size, 3), np.float32) for size in (32, 16)]
    module = models.merge(graphdef, draw(params), draw(stats))
    module.blocks[0].rate = 0.5  # the first of a network's has none
    kept = module.joint(views, train=True, key=jax.random.key(0))
    for features in map(np.asarray, kept):
        different = len(np.unique(features.round(4), axis=0))
        assert 1 < different <= 4  # each of two branches is there or not

"""Other ways to compute the same network give the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.parity_cases import draw
from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.models.options import OPTIONS, ROUNDED, check_shares
from cion_jax.tasks.distill.network import Network
from tests import miniatures
from tests.runs import assert_equal

miniatures.register()


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


@pytest.mark.parametrize("options", EQUAL, ids="+".join)
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


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("toy_vit", ("fast",), f"options are {', '.join(OPTIONS)}, each once"),
        ("toy_vit", ("padded_tokens", "padded_tokens"), "each once"),
        ("toy_vit", ("padded_tokens", "class_token_apart"), "one at most"),
        ("toy_resnet", ("padded_tokens",), "toy_resnet has no options, got padded_tokens; leave them out"),
    ],
)
def test_options_that_cannot_be(name, options, message):
    with pytest.raises(ConfigError, match=message):
        models.create(name, options=options, rngs=nnx.Rngs(0))


def test_what_mixes_the_rows_of_images_is_for_one_device():
    """On 16 chips the compiler moved 11 GB of rows between them in a step."""
    check_shares(tuple(OPTIONS), 1)
    check_shares(("padded_tokens", "fp8_products"), 16)
    with pytest.raises(ConfigError, match="class_token_apart is for one device, got 16; leave it out"):
        check_shares(("class_token_apart", "fp8_products"), 16)


@pytest.mark.parametrize("options", EQUAL, ids="+".join)
def test_stochastic_depth_drops_whole_images(options):
    graphdef, params, stats = models.split(
        nnx.eval_shape(lambda: models.create("toy_vit", options=options, rngs=nnx.Rngs(0)))
    )
    module = models.merge(graphdef, draw(params), draw(stats))
    module.blocks[0].rate = 0.5  # the first of a network's has none
    kept = np.asarray(module(np.ones((64, 32, 32, 3), np.float32), train=True, key=jax.random.key(0)))
    assert 1 < len(np.unique(kept.round(4), axis=0)) <= 4  # each of two branches is there or not

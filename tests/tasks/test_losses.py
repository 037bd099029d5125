"""Losses of fine-tuning against the authors' numbers, in float64, and hand-computed ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax.tasks.supervised import losses
from tests.tasks import reference

EXACT = 1e-9  # of float64 against float64
# (features, labels, margin, normalized) -> the loss and its gradient
triplet = jax.jit(jax.value_and_grad(losses.triplet), static_argnums=(2, 3))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def _parts(seed):
    """Inputs of mgn_losses: features, class weights, labels."""
    g = np.random.default_rng([seed, 300])
    ident = g.standard_normal((4, 256))
    x = (g.standard_normal((16, 256)) + 0.8 * np.repeat(ident, 4, 0)).astype(np.float32)
    return x, (g.standard_normal((40, 256)) / 16).astype(np.float32), ident


@pytest.fixture
def mgn(fixtures):
    spec, arrays = reference.load(fixtures, "mgn_losses")
    x, weight, ident = _parts(spec["seed"])
    weight[spec["labels"][::4]] += (0.1 * ident).astype(np.float32)
    return spec, arrays, jnp.asarray(x, float), jnp.asarray(weight, float), jnp.asarray(spec["labels"])


def _cosines(x, weight):
    return x @ weight.T / (jnp.linalg.norm(x, axis=1)[:, None] * jnp.linalg.norm(weight, axis=1))


@pytest.mark.parity
def test_circle_softmax_equals_the_reference(mgn):
    spec, arrays, x, weight, labels = mgn

    def loss(x, weight, smoothing=0.1):
        logits = losses.circle_softmax(_cosines(x, weight), labels, spec["scale"], spec["margin"])
        return losses.cross_entropy(logits, labels, smoothing, "others"), logits

    (value, logits), (of_x, of_weight) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, weight)
    assert reference.error(logits, arrays["logits_f64"]) < EXACT
    assert reference.error(of_x, arrays["grad_features_circle_ce_f64"]) < EXACT
    assert reference.error(of_weight, arrays["grad_weight_circle_ce_f64"]) < EXACT
    np.testing.assert_allclose(value, spec["float64"]["ce"], rtol=EXACT)
    np.testing.assert_allclose(jax.jit(loss)(x, weight, 0.0)[0], spec["float64"]["ce_eps0"], rtol=EXACT)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "margin", "normalized"),
    [("soft_hard", None, False), ("margin03_hard", 0.3, False), ("soft_hard_normalised", None, True)],
)
def test_mgns_triplet_equals_the_reference(mgn, name, margin, normalized):
    spec, arrays, x, _, labels = mgn
    value, gradient = triplet(x, labels, margin, normalized)
    np.testing.assert_allclose(value, spec["float64"][f"tri_{name}"], rtol=EXACT)
    assert reference.error(gradient, arrays[f"grad_features_triplet_{name}_f64"]) < EXACT


@pytest.mark.parity
def test_the_triplet_of_a_whole_batch_is_that_of_one_process(fixtures):
    spec, arrays = reference.load(fixtures, "mgn_four_processes")
    g = np.random.default_rng([spec["seed"], 320])
    ident = g.standard_normal((4, 32))
    x = g.standard_normal((64, 32)) + 0.6 * np.repeat(ident, 16, 0)
    value, gradient = triplet(jnp.asarray(x), jnp.asarray(spec["labels"]))
    np.testing.assert_allclose(value, spec["loss_one_process"], rtol=EXACT)
    assert reference.error(gradient, arrays["grad_one_process"]) < EXACT


@pytest.mark.parity
def test_ties_go_to_the_first_with_the_whole_gradient(fixtures):
    spec, arrays = reference.load(fixtures, "transreid_head")
    ties = reference.prefixed(arrays, "ties/")
    x, labels = jnp.asarray(ties["features"]), jnp.asarray(ties["labels"])
    positive, negative, furthest, nearest = jax.jit(losses.hardest)(x, labels)
    np.testing.assert_allclose(positive, ties["dist_ap"], rtol=EXACT)
    np.testing.assert_allclose(negative, ties["dist_an"], rtol=EXACT)
    assert np.array_equal(furthest, ties["p_inds"])
    assert np.array_equal(nearest, ties["n_inds"])
    for margin, loss, gradient in ((None, "loss", "grad"), (0.3, "loss_margin03", "grad_margin03")):
        value, ours = triplet(x, labels, margin)
        np.testing.assert_allclose(value, spec["ties"][loss], rtol=EXACT)
        np.testing.assert_allclose(ours, ties[gradient], rtol=EXACT, atol=EXACT)


def test_smoothed_cross_entropy_by_hand():
    logits, labels = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])), jnp.array([0, 1])
    log = np.log([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
    every = -(log @ [0.8, 0.1, 0.1])[0] / 2 - (log @ [0.1, 0.8, 0.1])[1] / 2
    others = -(log @ [0.7, 0.15, 0.15])[0] / 2 - (log @ [0.15, 0.7, 0.15])[1] / 2
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, 0.3), every, rtol=1e-12)
    np.testing.assert_allclose(losses.cross_entropy(logits, labels, 0.3, "others"), others, rtol=1e-12)


def test_images_without_loss_do_not_count_in_the_mean():
    certain = jnp.array([[1e4, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(losses.cross_entropy(certain, jnp.array([0, 0])), np.log(2), rtol=1e-12)


def test_a_batch_of_one_identity_has_no_triplet_loss():
    for margin in (None, 0.3):
        value, gradient = triplet(jnp.eye(3), jnp.zeros(3, int), margin)
        assert value == 0
        assert np.array_equal(gradient, np.zeros((3, 3)))


def test_equal_features_have_no_gradient():
    value, gradient = triplet(jnp.zeros((4, 3)), jnp.array([0, 0, 1, 1]), None, True)
    np.testing.assert_allclose(value, np.log(2))
    assert np.array_equal(gradient, np.zeros((4, 3)))


def test_a_sharded_batch_is_the_batch():
    """Every anchor's negatives lie on other devices."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((16, 8)))
    labels = jnp.arange(16) // 2
    mesh = Mesh(np.array(jax.devices()[:8]), "data")
    step = jax.jit(jax.value_and_grad(losses.triplet))
    rows = [jax.device_put(v, NamedSharding(mesh, P("data"))) for v in (x, labels)]
    for ours, whole in zip(step(*rows), step(x, labels), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-12, atol=1e-14)


def test_normalized_triplets_do_not_see_how_long_features_are():
    x, label = jnp.asarray([[3.0, 4.0], [6.0, 8.0], [0.0, 2.0], [5.0, 0.0]]), jnp.asarray([0, 0, 1, 1])
    logits = jnp.zeros((4, 2))
    plain, normalized = (losses.bnneck(x, logits, label, normalized=one)["triplet"] for one in (False, True))
    # On the circle at 0.6, 0.8 (twice); 0, 1; 1, 0. Positives are 0 or sqrt 2 away, negatives sqrt 0.4, but 0.8 one.
    near, far = np.sqrt(0.4), np.sqrt(0.8)
    by_hand = [0 - near, 0 - near, np.sqrt(2) - near, np.sqrt(2) - far]
    np.testing.assert_allclose(normalized, np.mean(np.log1p(np.exp(by_hand))), rtol=1e-5)
    assert plain > 1.5 * normalized
    longer = losses.bnneck(10 * x, logits, label, normalized=True)["triplet"]
    np.testing.assert_allclose(longer, normalized, rtol=1e-6)


def test_distances_at_the_floor_are_constant():
    x, labels = jnp.array([[0.0], [1e-7], [1.0], [1.0 + 1e-7]]), jnp.array([0, 0, 1, 1])
    positive, gradient = jax.jit(jax.value_and_grad(lambda x: losses.hardest(x, labels)[0].sum()))(x)
    np.testing.assert_allclose(positive, 4e-6, rtol=1e-12)
    assert np.array_equal(gradient, np.zeros((4, 1)))


def test_rounding_of_equal_features_gives_no_nan():
    """Squared distances of equal float32 features are rounding noise of either sign."""
    x = np.tile(np.random.default_rng(0).standard_normal((8, 1024)).astype(np.float32) * 30, (2, 1))
    labels = jnp.tile(jnp.arange(4).repeat(2), 2)
    squares = np.square(x).sum(1)
    assert (squares[:, None] + squares - 2 * x @ x.T).min() < 0
    value, gradient = triplet(jnp.asarray(x), labels)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))

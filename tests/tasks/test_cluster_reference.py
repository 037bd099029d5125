"""Cluster contrast against the authors' numbers: network, memory and optimizer steps in float64, and the sampler."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.data import cluster_batches
from cion_jax.models import layers, registry
from cion_jax.models.layers import l2_normalize
from cion_jax.tasks.cluster import epoch, memory, network
from cion_jax.training.optimizer import Group, Optimizer
from cion_jax.weights import torch_names
from tests import recipe
from tests.tasks import reference

EXACT = 1e-9
AFTER_STEPS = 1e-7
_BASE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@jax.jit
def _value_and_grad(x, centroids, labels):
    def loss(x):
        return memory.contrast(memory.logits(l2_normalize(x), centroids, len(centroids), 0.05), labels)

    return jax.value_and_grad(loss)(x)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("mode", "update", "momentum"),
    [("hard", "hardest", 0.2), ("mean", "every", 0.2), ("hard_m01", "hardest", 0.1), ("mean_m01", "every", 0.1)],
)
def test_memory_equals_the_reference(fixtures, mode, update, momentum):
    spec, arrays = reference.load(fixtures, "cc_memory")
    assert spec["temperature"] == 0.05
    cent = np.random.default_rng([spec["seed"], 400]).standard_normal((9, 64)).astype(np.float32)
    bank = l2_normalize(jnp.asarray(cent, float))
    np.testing.assert_allclose(bank, arrays["centroids_f64"], rtol=0, atol=EXACT)
    for k, row in enumerate(spec[mode]):
        labels = np.array(spec["labels"][k])
        noise = np.random.default_rng([spec["seed"], 401 + k]).standard_normal((32, 64))
        x = jnp.asarray((1.5 * noise + 0.9 * cent[labels]).astype(np.float32), float)
        loss, gradient = _value_and_grad(x, bank, labels)
        np.testing.assert_allclose(loss, row["loss_float64"], rtol=EXACT)
        if f"{mode}/grad{k}_f64" in arrays:
            assert reference.error(gradient, arrays[f"{mode}/grad{k}_f64"]) < EXACT
            np.testing.assert_allclose(jnp.linalg.norm(gradient), row["grad_l2"], rtol=EXACT)
        bank = memory.updated(bank, l2_normalize(x), labels, momentum, update)
        assert reference.error(bank, arrays[f"{mode}/after{k}_f64"]) < EXACT


def test_rows_that_are_not_in_use_count_for_nothing():
    rng = np.random.default_rng(0)
    bank, x = (l2_normalize(jnp.asarray(rng.standard_normal((n, 5)))) for n in (4, 3))
    labels = np.array([0, 2, 3])
    whole = memory.contrast(memory.logits(x, bank, 4, 0.05), labels)
    longer = jnp.concatenate([bank, jnp.zeros((3, 5))])
    np.testing.assert_allclose(memory.contrast(memory.logits(x, longer, 4, 0.05), labels), whole, rtol=EXACT)
    for update in ("hardest", "every"):
        after = memory.updated(longer, x, labels, 0.2, update)
        np.testing.assert_array_equal(after[4:], 0)
        np.testing.assert_array_equal(after[1], bank[1])


def test_of_equally_hard_images_the_first_counts():
    assert memory.hardest(jnp.array([0.5, 0.5, 0.9, 0.1]), jnp.array([1, 1, 1, 0])).tolist() == [1, 0, 0, 1]


class _Base(nnx.Module):
    """Convolution, BatchNorm, ReLU; a ResNet in one respect: it has maps."""

    features = 8

    def __init__(self, *, dtype, remat, rngs):
        del remat
        self.conv = layers.Conv(3, 8, 3, 2, padding=1, bias=False, dtype=dtype, rngs=rngs)
        self.bn = layers.BatchNorm(8, dtype=dtype, rngs=rngs)

    def maps(self, x_BHWC, *, train):
        return jax.nn.relu(self.bn(self.conv(x_BHWC), train=train))


def _start(name, spec, renamed):
    named = reference.weights(spec["seed"], spec["entries"])
    reference.check(named, spec["weights_check"])
    # The released code freezes the bias of the last norm at 0; the recipe gives it a value all the same.
    build = partial(network.Gem, name, dtype=jnp.float64, rngs=registry._OneKey())
    graphdef, params, stats = models.split(nnx.eval_shape(build))
    trees = torch_names.from_torch({renamed(n): a for n, a in named.items()}, params, stats)
    return graphdef, *jax.tree.map(lambda leaf: jnp.asarray(leaf, float), trees)


@pytest.mark.parity
def test_steps_equal_the_reference(fixtures):
    spec, arrays = reference.load(fixtures, "cc_toy")

    def renamed(name):
        return name if name.startswith(("gap", "feat_bn")) else f"backbone.{name}"

    with registry.BACKBONES.with_one_more("toy_maps", partial(_Base)):
        graphdef, params, stats = _start("toy_maps", spec, renamed)
    tx = Optimizer("sgd", (Group("all", ""),), momentum=spec["momentum"])
    state, labels = tx.init(params), jnp.asarray(spec["labels"])
    start = np.random.default_rng([spec["seed"], 410]).standard_normal((spec["clusters"], 8))
    bank = l2_normalize(jnp.asarray(start, float))
    at = {"learning_rate": spec["lr"], "weight_decay": spec["weight_decay"]}

    @jax.jit
    def step(params, stats, state, bank, x):
        def loss(params):
            module = models.merge(graphdef, params, stats)
            features = module(x, train=True)
            logits = memory.logits(features, bank, len(bank), spec["temperature"])
            after = memory.updated(bank, features, labels, spec["memory_momentum"], "hardest")
            return memory.contrast(logits, labels), (models.split(module)[2], after)

        (value, (after, bank_after)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        params, new_state, _ = tx.update(gradients, state, params, at)
        return value, gradients, params, after, new_state, bank_after

    def agree(ours, prefix, tolerance):
        expected = reference.prefixed(arrays, prefix)
        assert expected
        for name, value in expected.items():
            np.testing.assert_allclose(
                ours[renamed(name)], value, rtol=0, atol=tolerance * max(1, np.abs(value).max()), err_msg=name
            )

    for i, row in enumerate(spec["steps"]):
        g = np.random.default_rng([spec["seed"], 80 + i])
        x = jnp.asarray(g.standard_normal((16, 3, 32, 16)).astype(np.float32).transpose(0, 2, 3, 1), float)
        value, gradients, params, stats, state, bank = step(params, stats, state, bank, x)
        np.testing.assert_allclose(value, row["loss_float64"], rtol=AFTER_STEPS)
        agree(torch_names.to_torch(gradients, {}), f"grad{i}/", AFTER_STEPS if i else EXACT)
        agree(torch_names.to_torch(params, stats), f"after{i}/", AFTER_STEPS)
        np.testing.assert_allclose(bank, arrays[f"memory{i}"], rtol=0, atol=AFTER_STEPS)


def _network_name(name):
    first, _, rest = name.partition(".")
    if first != "base":
        return name
    number, _, rest = rest.partition(".")
    return f"backbone.{_BASE[number]}.{rest}"


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50_ibn", "resnet50"])
def test_the_network_equals_the_reference(fixtures, name):
    spec, arrays = reference.load(fixtures, "cc_model")
    graphdef, params, stats = _start(name, spec[name] | {"seed": spec["seed"]}, _network_name)
    call = jax.jit(lambda x, train: models.merge(graphdef, params, stats)(x, train=train), static_argnums=1)
    x = jnp.asarray(recipe.image(spec["seed"], 256, 128).transpose(0, 2, 3, 1), float)
    assert reference.error(call(x, False), arrays[f"{name}/eval_256x128_f64"]) < EXACT
    if f"{name}/train_128x64_f64" in arrays:
        x = jnp.asarray(((reference.crops(spec["seed"], 8, 128, 64) - 128) / 64).transpose(0, 2, 3, 1), float)
        assert reference.error(call(x, True), arrays[f"{name}/train_128x64_f64"]) < 1e-7


@pytest.mark.parity
def test_centroids_equal_the_reference(fixtures):
    _, arrays = reference.load(fixtures, "cc_jaccard")
    for eps in (0.5, 0.6, 0.7):
        label = arrays[f"k30_6/labels_eps{eps}"].astype(int)
        expected = arrays[f"k30_6/centroids_eps{eps}_f64"]
        found = epoch.centroids(arrays["features"], label, len(expected) + 2)
        np.testing.assert_allclose(found[: len(expected)], expected, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(found[len(expected) :], 0)


@pytest.fixture(scope="module")
def sampled(fixtures):
    """(clusters, camera of every image, the fixture's lists)."""
    spec, arrays = reference.load(fixtures, "cc_sampler")
    sizes = [1 + 5 * i % 17 for i in range(spec["clusters"])]
    label = np.repeat(np.arange(len(sizes)), sizes)
    return label, arrays["camera_of_image"].astype(int), arrays


def _rules(label, camera, groups):
    """What is true of every group: its images are of one cluster; of other cameras than its first, where there are;
    distinct, where there are enough."""
    for records in groups:
        anchor, others = records[0], records[1:]
        members = np.flatnonzero(label == label[anchor])
        elsewhere = members[camera[members] != camera[anchor]]
        allowed = elsewhere if len(elsewhere) else members[members != anchor]
        if not len(allowed):
            assert np.all(others == anchor)
            continue
        assert set(others) <= set(allowed)
        assert len(set(others)) == len(others) or len(allowed) < len(records)


@pytest.mark.parity
@pytest.mark.parametrize("k", [8, 4])
def test_the_sampler_keeps_the_released_rules(sampled, k):
    label, camera, arrays = sampled
    theirs, groups = arrays[f"K{k}/list0"].astype(int), []
    while len(theirs):
        size = 1 if (label == label[theirs[0]]).sum() == 1 else k
        groups.append(theirs[:size])
        theirs = theirs[size:]
    assert sorted(label[group[0]] for group in groups) == list(range(51))  # every cluster once
    _rules(label, camera, groups)
    plan = cluster_batches.ClusterPlan([label], camera, 0, 0, 60, 17, k)
    ours = [plan.group(g) for g in range(len(plan))]
    _rules(label, camera, ours)
    for first in range(0, len(ours), 51):  # three batches of 17 are a pass
        assert sorted(label[group[0]] for group in ours[first : first + 51]) == list(range(51))
    # Clusters of one image count as one here; the released list has it once.
    distinct = np.mean([len(set(group)) for group in ours])
    theirs = [len(set(group)) for group in groups]
    assert abs(distinct - np.mean(theirs)) < 4 * np.std(theirs) / np.sqrt(len(theirs))

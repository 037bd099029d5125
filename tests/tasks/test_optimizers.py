"""Optimizer steps of fine-tuning against the authors' numbers, in float64: two small networks in training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.models import layers, registry
from cion_jax.tasks.supervised import losses, necks, schedules
from cion_jax.tasks.supervised.task import GROUPS
from cion_jax.training.optimizer import Group, Optimizer
from cion_jax.weights import torch_names
from tests.tasks import reference

EXACT = 1e-9  # of gradients
AFTER_STEPS = 1e-7  # of parameters


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


class _Base(nnx.Module):
    """Convolution, BatchNorm, ReLU, average pooling."""

    features = 8

    def __init__(self, *, dtype, remat, rngs):
        del remat
        self.conv = layers.Conv(3, 8, 3, 2, padding=1, dtype=dtype, rngs=rngs)
        self.bn = layers.BatchNorm(8, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC, *, train, key):
        del key
        return jax.nn.relu(self.bn(self.conv(x_BHWC), train=train)).mean((1, 2))


class _Branch(nnx.Module):
    """One branch of MGN."""

    def __init__(self, classes, *, dtype, rngs):
        kw = {"dtype": dtype, "rngs": rngs}
        self.backbone = layers.Layers([layers.Conv(3, 4, 3, 2, padding=1, bias=False, **kw), layers.BatchNorm(4, **kw)])
        self.b1 = layers.Layers([layers.Conv(4, 6, 3, 2, padding=1, bias=False, **kw), layers.BatchNorm(6, **kw)])
        self.heads_extra_bn_b1 = layers.BatchNorm(6, **kw)
        self.b1_head = necks.PartHead(6, classes, 5, **kw)

    def __call__(self, x, *, frozen):
        for conv, norm in (self.backbone, self.b1):
            x = jax.nn.relu(norm(conv(x), train=not frozen))
        feature = self.b1_head(self.heads_extra_bn_b1(x, train=True), train=True)
        return feature, self.b1_head.cosines(feature)


def _start(build, spec, renamed=lambda name: name):
    """Graph, parameters, statistics with the fixture's weights."""
    named = reference.weights(spec["seed"], spec["entries"])
    reference.check(named, spec["weights_check"])
    graphdef, params, stats = models.split(nnx.eval_shape(lambda: build(dtype=jnp.float64, rngs=registry._OneKey())))
    trees = torch_names.from_torch({renamed(n): a for n, a in named.items()}, params, stats)
    return graphdef, *jax.tree.map(lambda leaf: jnp.asarray(leaf, float), trees)


def _images(seed, number):
    g = np.random.default_rng([seed, number])
    return jnp.asarray(g.standard_normal((16, 3, 32, 16)).astype(np.float32).transpose(0, 2, 3, 1), float)


def _agree(ours, arrays, prefix, tolerance):
    expected = reference.prefixed(arrays, prefix)
    assert expected
    for name, value in expected.items():
        np.testing.assert_allclose(
            ours[name], value, rtol=0, atol=tolerance * max(1, np.abs(value).max()), err_msg=name
        )


@pytest.mark.parity
@pytest.mark.parametrize("run", ["default", "large_fc"])
def test_transreids_steps_equal_the_reference(fixtures, run):
    spec, arrays = reference.load(fixtures, "transreid_toy")
    with registry.BACKBONES.with_one_more("toy_base", partial(_Base)):
        build = partial(necks.BNNeckNetwork, "toy_base", spec["classes"])
        graphdef, params, stats = _start(build, spec, lambda name: name.replace("base.", "backbone."))
    large = [Group("large", "^classifier/", learning_rate="learning_rate_bias")] if run == "large_fc" else []
    tx = Optimizer("sgd", [*large, *GROUPS["bnneck"]])
    state, labels = tx.init(params), jnp.asarray(spec["labels"])

    @jax.jit
    def step(params, stats, state, x, epoch):
        def loss(params):
            network = models.merge(graphdef, params, stats)
            terms = losses.bnneck(*network(x, train=True), labels)
            return sum(terms.values()), models.split(network)[2]

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        rate = partial(
            schedules.transreid, epoch, spec["base_lr"], epochs=spec["max_epochs"], warmup=spec["warmup_epochs"]
        )
        rates = {"learning_rate": rate(factor=1.0), "learning_rate_bias": rate(factor=2.0)}
        params, new_state, _ = tx.update(gradients, state, params, rates | {"weight_decay": spec["weight_decay"]})
        return value, gradients, params, after, new_state

    for i, row in enumerate(row for row in spec["steps"] if row["run"] == run):
        x = _images(spec["seed"], 60 + i)
        value, gradients, params, stats, state = step(params, stats, state, x, row["epoch"] - 1)
        np.testing.assert_allclose(value, row["loss_float64"], rtol=AFTER_STEPS)

        def named(*trees):
            return {n.replace("backbone.", "base."): a for n, a in torch_names.to_torch(*trees).items()}

        if run == "default":
            _agree(named(gradients, {}), arrays, f"grad{i}/", AFTER_STEPS if i else EXACT)
        if f"{run}/after{i}/classifier.weight" in arrays:
            _agree(named(params, stats), arrays, f"{run}/after{i}/", AFTER_STEPS)


@pytest.mark.parity
def test_mgns_steps_equal_the_reference(fixtures):
    spec, arrays = reference.load(fixtures, "mgn_toy")
    graphdef, params, stats = _start(partial(_Branch, spec["classes"]), spec)
    tx = Optimizer("adam", GROUPS["mgn"])
    state, labels = tx.init(params), jnp.asarray(spec["labels"])

    @partial(jax.jit, static_argnames="frozen")
    def step(params, stats, state, x, number, frozen):
        def loss(params):
            network = models.merge(graphdef, params, stats)
            feature, cosine = network(x, frozen=frozen)
            identity = losses.cross_entropy(losses.circle_softmax(cosine, labels), labels, 0.1, "others")
            return 0.125 * identity + 0.2 * losses.triplet(feature, labels), models.split(network)[2]

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        of = {"steps": spec["iterations"], "warmup": spec["warmup"], "flat": spec["delay"]}
        rate = schedules.mgn(number, spec["base_lr"], **of)
        at = {"learning_rate": rate, "weight_decay": spec["weight_decay"]}
        params, new_state, _ = tx.update(
            gradients, state, params, at | {"backbone_trains": number >= spec["freeze_iters"] + 1}
        )
        return value, gradients, params, after, new_state

    for i, row in enumerate(spec["steps"]):
        value, gradients, params, stats, state = step(
            params, stats, state, _images(spec["seed"], 70 + i), i, row["frozen"]
        )
        np.testing.assert_allclose(value, row["loss_float64"], rtol=AFTER_STEPS)
        _agree(torch_names.to_torch(gradients, {}), arrays, f"grad{i}/", AFTER_STEPS if i else EXACT)
        _agree(torch_names.to_torch(params, stats), arrays, f"after{i}/", AFTER_STEPS)
    counts = {int(leaf) for leaf in jax.tree.leaves(state) if leaf.shape == ()}
    assert counts == set(spec["adam_steps_taken"].values())

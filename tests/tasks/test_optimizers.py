"""Optimizer steps of fine-tuning against the authors' numbers, in float64: two small networks in training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.models import layers, registry
from cion_jax.tasks.supervised import losses, necks, optimizers, schedules
from cion_jax.tasks.supervised.optimizers import NEVER, Group, Optimizer
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
    groups = [Group("bias", rate=2.0), Group("^classifier/", rate=2.0 if run == "large_fc" else 1.0), Group(".*")]
    tx = optimizers.build(Optimizer("sgd"), groups)
    state, labels = tx.init(params), jnp.asarray(spec["labels"])

    @jax.jit
    def step(params, stats, state, x, epoch, number):
        def loss(params):
            network = models.merge(graphdef, params, stats)
            terms = losses.bnneck(*network(x, train=True), labels)
            return sum(terms.values()), models.split(network)[2]

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        rate = partial(
            schedules.transreid, epoch, spec["base_lr"], epochs=spec["max_epochs"], warmup=spec["warmup_epochs"]
        )
        params, new_state, _ = optimizers.update(
            tx, gradients, state, params, step=number, rate=rate, weight_decay=spec["weight_decay"]
        )
        return value, gradients, params, after, new_state

    for i, row in enumerate(row for row in spec["steps"] if row["run"] == run):
        x = _images(spec["seed"], 60 + i)
        value, gradients, params, stats, state = step(params, stats, state, x, row["epoch"] - 1, i)
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
    groups = [Group("^(backbone|b1)/", frozen_until=spec["freeze_iters"] + 1), Group(".*")]
    tx = optimizers.build(Optimizer("adam"), groups)
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
        params, new_state, _ = optimizers.update(
            tx,
            gradients,
            state,
            params,
            step=number,
            rate=lambda factor: factor * rate,
            weight_decay=spec["weight_decay"],
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


def _one_step(settings, groups, step=0, **at):
    params = {"a": {"bias": jnp.array([2.0])}, "b": {"kernel": jnp.array([4.0])}}
    gradients = {"a": {"bias": jnp.array([1.0])}, "b": {"kernel": jnp.array([3.0])}}
    tx = optimizers.build(settings, groups)
    at = {"rate": lambda factor: 0.1 * factor, "weight_decay": 0.5} | at
    params, _, _ = optimizers.update(tx, gradients, tx.init(params), params, step=step, **at)
    return float(params["a"]["bias"][0]), float(params["b"]["kernel"][0])


def test_hand_computed_steps():
    """Bias 2 with gradient 1, kernel 4 with gradient 3, decay 0.5 and rate 0.1."""
    groups = [Group("bias$", rate=2.0, decay=0.0), Group(".*")]
    np.testing.assert_allclose(_one_step(Optimizer("sgd"), groups), [2 - 0.2 * 1, 4 - 0.1 * (3 + 0.5 * 4)], rtol=1e-7)
    np.testing.assert_allclose(_one_step(Optimizer("adam"), groups), [2 - 0.2, 4 - 0.1], rtol=1e-7)
    np.testing.assert_allclose(_one_step(Optimizer("adamw"), groups), [2 - 0.2, 4 - 0.1 * (1 + 0.5 * 4)], rtol=1e-7)
    clipped = _one_step(Optimizer("sgd", clip=1.5), groups)
    np.testing.assert_allclose(clipped, [2 - 0.2 * 1, 4 - 0.1 * (1.5 + 0.5 * 4)], rtol=1e-5)


def test_the_first_group_that_fits_counts():
    assert _one_step(Optimizer("sgd"), [Group("kernel", frozen_until=NEVER), Group(".*", decay=0.0)]) == (1.9, 4.0)
    assert _one_step(Optimizer("sgd"), [Group(".*", decay=0.0), Group("kernel", frozen_until=NEVER)]) == (1.9, 3.7)


def test_frozen_groups_start_at_their_step():
    groups = [Group("^a/", frozen_until=3), Group(".*")]
    assert _one_step(Optimizer("sgd"), groups, step=2)[0] == 2.0
    assert _one_step(Optimizer("sgd"), groups, step=3)[0] == pytest.approx(2 - 0.1 * (1 + 0.5 * 2))


def test_a_parameter_in_no_group_raises():
    with pytest.raises(ConfigError, match=r"b/kernel is in none of the optimizer's groups \['bias'\]"):
        _one_step(Optimizer(), [Group("bias")])

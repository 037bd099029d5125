"""BNNeck and MGN against the authors' numbers, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.models import registry
from cion_jax.models.fuse import fuse
from cion_jax.models.layers import Conv, Layers, run
from cion_jax.models.resnet import BasicBlock, ResNet
from cion_jax.tasks.supervised import losses, necks, recipes
from cion_jax.weights import torch_names
from tests import miniatures
from tests.tasks import reference

EXACT = 1e-9
TERMS = {
    "id": (0.0, None),
    "id_smooth": (0.1, None),
    "triplet": (None, "soft"),
    "total": (0.0, "soft"),
    "total_smooth": (0.1, "soft"),
    "total_margin": (0.0, "margin"),
    "total_l2": (0.0, "normalized"),
}
TRIPLETS = {
    "soft": losses.triplet,
    "margin": partial(losses.triplet, margin=0.3),
    "normalized": partial(losses.triplet, normalized=True),
}


def _float64(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), tree)


def _abstract(build):
    return models.split(nnx.eval_shape(lambda: build(rngs=registry._OneKey())))


def _loaded(build, named):
    graphdef, params, stats = _abstract(build)
    return graphdef, *_float64(torch_names.from_torch(named, params, stats))


def _head_inputs(seed, width, rows=16):
    g = np.random.default_rng([seed, width, rows])
    ident, f = g.standard_normal((4, width)), g.standard_normal((rows, width))
    f = f + 0.35 * np.repeat(ident, 4, 0)
    return (0.5 * abs(f) if width == 2048 else f).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize(("name", "width"), [("resnet50_ibn", 2048), ("vit_small", 384)])
def test_bnneck_equals_the_reference(fixtures, name, width):
    spec, arrays = reference.load(fixtures, "transreid_head")
    expected, numbers = reference.prefixed(arrays, f"{name}/"), spec[name]
    named = reference.weights(spec["seed"], numbers["entries"])
    reference.check(named, numbers["weights_check"])
    labels = jnp.asarray(spec["labels"])
    with jax.enable_x64(True):
        build = partial(necks.BNNeck, width, spec["classes"], dtype=jnp.float64)
        graphdef, params, stats = _loaded(build, named)
        x = jnp.asarray(_head_inputs(spec["seed"], width), float)
        assert (
            reference.error(models.merge(graphdef, params, stats).bottleneck(x, train=False), expected["eval_after"])
            < 1e-5
        )

        @partial(jax.jit, static_argnames="term")
        @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
        def step(params, x, term):
            neck = models.merge(graphdef, params, stats)
            logits = neck.logits(x, train=True)
            smoothing, kind = TERMS[term]
            identity = 0.0 if smoothing is None else losses.cross_entropy(logits, labels, smoothing)
            triplet = TRIPLETS[kind](x, labels) if kind else 0.0
            return identity + triplet, (logits, models.split(neck)[2])

        for term in TERMS:
            (loss, (logits, after)), (of_params, of_x) = step(params, x, term)
            np.testing.assert_allclose(loss, numbers["loss_float64"][term], rtol=EXACT)
            assert reference.error(logits, expected["score_f64"]) < EXACT
            np.testing.assert_allclose(jnp.linalg.norm(of_x), numbers["grad_features_l2"][term], rtol=EXACT)
            if f"grad_features_{term}_f64" in expected:
                gradient = expected[f"grad_features_{term}_f64"]
                assert reference.error(of_x[:, : gradient.shape[1]], gradient) < EXACT
            if term == "total":
                norm, kernel = of_params["bottleneck"]["scale"], of_params["classifier"]["kernel"].T
                assert reference.error(norm, expected["grad_bottleneck_weight_total_f64"]) < EXACT
                assert reference.error(kernel[:, :64], expected["grad_classifier_weight_total_f64"]) < EXACT
                np.testing.assert_allclose(
                    jnp.linalg.norm(kernel), numbers["grad_param_l2"]["classifier.weight"], rtol=EXACT
                )
                assert "bias" not in of_params["bottleneck"]
        for ours, theirs in (("mean", "running_mean_after"), ("var", "running_var_after")):
            np.testing.assert_allclose(after["bottleneck"][ours], expected[theirs], rtol=1e-5, atol=1e-6)
        positive, negative, furthest, nearest = losses.hardest(x, labels)
        np.testing.assert_allclose(positive, expected["dist_ap_f64"], rtol=1e-9)
        np.testing.assert_allclose(negative, expected["dist_an_f64"], rtol=1e-9)
        assert np.array_equal(furthest, expected["p_inds"])
        assert np.array_equal(nearest, expected["n_inds"])


@pytest.fixture(scope="module")
def mgn(fixtures):
    """The fixture of MGN and the network with its weights, in float64."""
    spec, arrays = reference.load(fixtures, "mgn_r50ibn")
    named = reference.weights(spec["seed"], spec["entries"])
    reference.check(named, spec["weights_check"])
    with jax.enable_x64(True):
        yield spec, arrays, *_loaded(partial(necks.MGN, "resnet50_ibn", spec["classes"], dtype=jnp.float64), named)


def _normalized(spec, n, h, w):
    x = reference.crops(spec["seed"], n, h, w).transpose(0, 2, 3, 1).astype(float)
    return jnp.asarray((x - spec["pixel_mean"]) / spec["pixel_std"])


def _check_served(mgn, height, width):
    spec, arrays, graphdef, params, stats = mgn
    with jax.enable_x64(True):
        x = _normalized(spec, 2, height, width)
        ours = jax.jit(lambda params, stats, x: necks.Granular.__call__(models.merge(graphdef, params, stats), x))(
            params, stats, x
        )
    expected = arrays[f"eval_{height}x{width}_f64"]
    assert reference.error(ours, expected) < EXACT
    assert reference.error(ours[0] - ours[1], expected[0] - expected[1]) < EXACT


@pytest.mark.parity
def test_mgn_serves_what_the_reference_does(mgn):
    _check_served(mgn, 192, 64)


@pytest.mark.slow
@pytest.mark.parity
def test_mgn_serves_what_the_reference_does_at_full_size(mgn):
    _check_served(mgn, 384, 128)


@pytest.mark.slow
@pytest.mark.parity
def test_mgn_trains_as_the_reference(mgn):
    spec, arrays, graphdef, params, stats = mgn
    labels = jnp.asarray(spec["labels"])

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def step(params, stats, x):
        network = models.merge(graphdef, params, stats)
        parts = network(x, train=True)
        terms = losses.mgn(*parts, labels)
        return sum(t.sum() for t in terms.values()), (parts, terms, models.split(network)[2])

    with jax.enable_x64(True):
        (total, (parts, terms, after)), gradients = step(params, stats, _normalized(spec, 8, 192, 64))
        logits = [losses.circle_softmax(parts.cosines[:, p], labels) for p in range(len(necks.HEADS))]
    np.testing.assert_allclose(total, spec["total_float64"], rtol=EXACT)
    for kind, name, heads in (
        ("identity", "cls", necks.HEADS),
        ("triplet", "triplet", ("b1", "b2", "b3", "b22", "b33")),
    ):
        expected = [spec["losses_float64"][f"loss_{name}_{head}"] for head in heads]
        np.testing.assert_allclose(terms[kind], expected, rtol=EXACT)
    for p, head in enumerate(necks.HEADS):
        assert reference.error(logits[p], arrays[f"train/{head}/logits_f64"]) < EXACT
        assert reference.error(parts.features[:, p], arrays[f"train/{head}/features_f64"]) < EXACT
    statistics = torch_names.to_torch({}, after)
    for name, expected in reference.prefixed(arrays, "train/after/").items():
        assert reference.error(statistics[name.removesuffix("_f64")], expected) < EXACT
    _check_gradients(spec, arrays, torch_names.to_torch(gradients, {}))


def _check_gradients(spec, arrays, ours):
    names = [n for n, _, _, kind in spec["entries"] if kind == "param" and n not in spec["parameters_without_gradient"]]
    norms = np.array([np.linalg.norm(ours[name]) for name in names])
    np.testing.assert_allclose(norms, arrays["train/grad_l2_all_f64"], rtol=1e-7)
    for name, expected in zip(spec["grad_params"], arrays["train/grad_first8_f64"], strict=True):
        first = ours[name].ravel()[:8]
        typical = np.linalg.norm(ours[name]) / np.sqrt(ours[name].size)
        assert np.abs(first - expected[: len(first)]).max() < 1e-7 * typical, name


def _made(build, seed=0):
    """(graphdef, params, stats) with weights made by NumPy, which takes no compilation."""
    graphdef, params, stats = _abstract(build)
    g = np.random.default_rng(seed)

    def weight(path, leaf):
        vector = 1.0 if "scale" in str(path) else 3.0 if "'p'" in str(path) else 0.0
        return np.float32(vector + g.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) or 1) / 2)

    statistics = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, "var" in str(path), np.float32), stats
    )
    return graphdef, jax.tree_util.tree_map_with_path(weight, params), statistics


_SMALL = partial(ResNet, BasicBlock, (1, 1, 2, 1))


@pytest.fixture(scope="module")
def small():
    """MGN of a ResNet with few blocks, 3 classes: its trees."""
    with registry.BACKBONES.with_one_more("small", _SMALL):
        return _made(partial(necks.MGN, "small", 3))


def _x(count=4, height=96, width=32):
    return np.random.default_rng(0).standard_normal((count, height, width, 3)).astype(np.float32)


def test_branches_start_equal_and_have_their_own_arrays():
    branch = Layers([Conv(1, 2, 1, dtype=jnp.float32, rngs=nnx.Rngs(0))])
    ours, copied = branch[0].kernel[...], necks.copy(branch)[0].kernel[...]
    assert np.array_equal(ours, copied)
    assert ours.unsafe_buffer_pointer() != copied.unsafe_buffer_pointer()


def test_weights_of_a_resnet_spread_over_the_branches(small):
    resnet, params, stats = _made(_SMALL, 7)
    graphdef, whole, running = small
    spread = [necks.spread(params), necks.spread(stats)]
    for ours, tree in zip(spread, (whole, running), strict=True):
        assert jax.tree.structure(ours) == jax.tree.structure({name: tree[name] for name in ours})
    loaded = {**whole, **spread[0]}, {**running, **spread[1]}

    @jax.jit
    def pooled(loaded, plain, x):
        network = models.merge(graphdef, *loaded)
        shared, outputs = network._shared(x, train=False), []
        for branch in (network.b1, network.b2, network.b3):
            y = shared
            for blocks in branch:
                y = run(blocks, y, train=False, key=None, remat=False)
            outputs.append(y.mean((1, 2)))
        return [*outputs, models.merge(resnet, *plain)(x)]

    *branches, expected = pooled(loaded, (params, stats), _x(1, 48, 16))
    for ours in branches:
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_frozen_branches_have_neither_gradient_nor_new_statistics(small):
    graphdef, params, stats = small

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def step(params, stats, x):
        network = models.merge(graphdef, params, stats)
        parts = network(x, train=True, frozen=True)
        return sum(t.sum() for t in losses.mgn(*parts, jnp.array([0, 0, 2, 2])).values()), models.split(network)[2]

    def changed(tree, other):
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), tree, other)
        return {name for name, part in moved.items() if jax.tree.reduce(lambda a, b: a or b, part)}

    gradients, after = step(params, stats, _x())
    frozen = {"backbone", "b1", "b2", "b3"}
    assert changed(gradients, jax.tree.map(np.zeros_like, params)) == params.keys() - frozen
    assert changed(after, stats) == stats.keys() - frozen


def test_mgn_serves_the_same_when_fused(small):
    network = models.merge(*small)
    (graphdef, whole), (simpler, folded) = nnx.split(network), nnx.split(fuse(network))

    @jax.jit
    def serve(whole, folded, x):
        return [necks.Granular.__call__(nnx.merge(*parts), x) for parts in ((graphdef, whole), (simpler, folded))]

    whole, fused = serve(whole, folded, _x(1, 96, 32))
    assert whole.shape == (1, network.features)
    np.testing.assert_allclose(fused, whole, rtol=1e-3, atol=1e-3)


def test_mgn_takes_resnets_only():
    miniatures.register()
    with pytest.raises(ConfigError, match="MGN takes a ResNet apart, got the backbone toy_vit"):
        _abstract(partial(necks.MGN, "toy_vit", 3))


def test_stripes_are_equal_or_the_last_is_lower():
    rows = jnp.arange(7.0).reshape(1, 7, 1, 1)
    assert [part.ravel().tolist() for part in necks.stripes(rows[:, :6], 3)] == [[0, 1], [2, 3], [4, 5]]
    assert [part.ravel().tolist() for part in necks.stripes(rows, 2)] == [[0, 1, 2, 3], [4, 5, 6]]
    with pytest.raises(ValueError, match="4 rows of a map do not give 3 parts of 2"):
        necks.stripes(rows[:, :4], 3)


@pytest.mark.parity
@pytest.mark.parametrize("p", ["2.5", "3.0"])
def test_pooling_equals_the_reference(fixtures, p):
    spec, arrays = reference.load(fixtures, "mgn_losses")
    g = np.random.default_rng([spec["seed"], 301])
    m, cotangent = (g.standard_normal(shape).astype(np.float32) for shape in ((2, 5, 6, 4), (2, 5)))

    def pooled(x, power):
        pool = necks.GeneralizedMean()
        pool.p.set_value(power)
        out = pool(x)
        return (out * cotangent).sum(), out

    with jax.enable_x64(True):
        x, power = jnp.asarray(m.transpose(0, 2, 3, 1), float), jnp.array([float(p)])
        (of_x, of_p), out = jax.grad(pooled, (0, 1), has_aux=True)(x, power)
        (below, _), floor = jax.grad(pooled, (0, 1), has_aux=True)(-jnp.abs(x), power)
    assert reference.error(out, arrays[f"gem{p}/out_f64"]) < EXACT
    assert reference.error(of_x.transpose(0, 3, 1, 2), arrays[f"gem{p}/grad_map_f64"]) < EXACT
    np.testing.assert_allclose(of_p[0], spec[f"gem{p}"]["grad_p"], rtol=EXACT)
    np.testing.assert_allclose(floor, spec["gem_all_negative"]["out"], rtol=EXACT)
    assert np.abs(below).max() == 0


def test_bnneck_serves_before_or_after_its_norm():
    miniatures.register()
    graphdef, params, stats = _made(partial(necks.BNNeckNetwork, "toy_resnet", 5))
    params["bottleneck"]["scale"] = np.full_like(params["bottleneck"]["scale"], 2.0)

    @jax.jit
    def outputs(params, stats, x):
        served = {name: tree for name, tree in params.items() if name != "classifier"}
        after = models.merge(models.split(models.abstract("toy_resnet+bnneck"))[0], served, stats)
        before = models.merge(models.split(models.abstract("toy_resnet"))[0], params["backbone"], stats["backbone"])
        return before(x), after(x), models.merge(graphdef, params, stats)(x)

    before, after, out = outputs(params, stats, _x(2, 32, 16))
    np.testing.assert_allclose(after, 2 * before / np.sqrt(1 + 1e-5), rtol=1e-5)
    np.testing.assert_allclose(out.features, before, rtol=1e-6)
    np.testing.assert_allclose(out.logits, after @ params["classifier"]["kernel"], rtol=1e-3, atol=1e-5)
    assert "bias" not in params["bottleneck"]
    assert not np.any(stats["bottleneck"]["bias"])


def test_classifiers_and_norms_start_as_in_the_release():
    classifier = necks.BNNeck(64, 500, rngs=nnx.Rngs(0)).classifier.kernel[...]
    assert np.std(classifier) == pytest.approx(0.001, rel=0.02)
    head = necks.PartHead(64, 500, rngs=nnx.Rngs(0))
    assert np.abs(head.classifier.kernel[...]).max() == pytest.approx(1 / 16, rel=1e-3)
    assert np.std(head.classifier.kernel[...]) == pytest.approx(1 / 16 / np.sqrt(3), rel=0.02)
    assert np.std(head.bottleneck[0].kernel[...]) == pytest.approx(np.sqrt(2 / 256), rel=0.02)
    assert np.std(head.bottleneck[1].scale[...]) == pytest.approx(0.02, rel=0.2)
    assert np.mean(head.bottleneck[1].scale[...]) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes.MGN_BACKBONES)
def test_every_resnet_of_the_recipe_spreads(name):
    _, *trees = _abstract(partial(necks.MGN, name, 5))
    _, *plain = models.split(models.abstract(name))
    for tree, resnet in zip(trees, plain, strict=True):
        ours = necks.spread(resnet)
        assert jax.tree.map(lambda leaf: leaf.shape, ours) == {
            part: jax.tree.map(lambda leaf: leaf.shape, tree[part]) for part in ours
        }

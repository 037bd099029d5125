"""BNNeck and MGN against the authors' numbers, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.data.views import MEAN, STD
from cion_jax.models import registry, weights
from cion_jax.tasks.supervised import losses, necks
from cion_jax.typed import ConfigError
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
    return graphdef, *_float64(weights.from_torch(named, params, stats))


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

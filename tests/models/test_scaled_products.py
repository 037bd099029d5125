"""No number multiplies a product with a bias: XLA on a GPU has compiled a (x W + b) to a (x W) + b."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from cion_jax import models
from cion_jax.models.layers import Linear, drop_path
from tests import miniatures, toy

miniatures.register()
_SAME = {"reshape", "convert_element_type", "squeeze", "broadcast_in_dim", "copy", "expand_dims", "stop_gradient"}


def _inner(step):
    """The programs within a step."""
    values = [v for value in step.params.values() for v in (value if isinstance(value, tuple | list) else [value])]
    return [getattr(v, "jaxpr", v) for v in values if isinstance(v, ClosedJaxpr | Jaxpr)]


def _at_risk(program):
    """Multiplications by a number of what is, in another shape or type, a product plus a bias that nothing else uses:
    XLA leaves alone what others use, such as LayerNorm's input."""
    made = {out: step for step in program.eqns for out in step.outvars}
    uses = Counter(x for step in program.eqns for x in step.invars if not isinstance(x, Literal))

    def origin(x, once):
        """The kind of step that made it, and what it made."""
        while step := made.get(x if isinstance(x, Var) else None):
            if once and uses[x] > 1:
                break
            if step.primitive.name not in _SAME:
                return step.primitive.name, x
            x = step.invars[0]
        return "", x

    def risky(step):
        variables = [x for x in step.invars if not isinstance(x, Literal)]
        arrays = [x for x in variables if x.aval.shape]
        if step.primitive.name not in ("mul", "div") or len(arrays) != 1 or len(variables) - len(arrays) > 1:
            return False
        name, total = origin(arrays[0], once=True)
        terms = [x for x in made[total].invars if not isinstance(x, Literal)] if name == "add" else []
        return "dot_general" in [origin(x, once=False)[0] for x in terms]

    found = [step for inner in map(_inner, program.eqns) for part in inner for step in _at_risk(part)]
    return found + [step for step in program.eqns if risky(step)]


def _program(name, dtype):
    graphdef, params, stats = models.split(models.abstract(name, dtype=dtype))

    def trained(params, stats, x):
        network = models.merge(graphdef, params, stats)
        return jnp.sum(network(x, train=True, key=jax.random.key(0)).astype(jnp.float32))

    image = jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)
    return jax.make_jaxpr(jax.grad(trained))(params, stats, image).jaxpr


def test_the_pattern_is_recognized():
    x, w, b = jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.ones(4)
    risky = [lambda x: 0.5 * (x @ w + b), lambda x: (x @ w + b).reshape(2, 2, 2).astype(jnp.float32) / 3]
    safe = [lambda x: x @ (0.5 * w) + 0.5 * b, lambda x: 0.5 * (x @ w)]
    assert [len(_at_risk(jax.make_jaxpr(f)(x).jaxpr)) for f in risky + safe] == [1, 1, 0, 0]


@pytest.mark.parametrize("name", ["toy_volo", "toy_swin", "toy_vit"])
def test_no_miniature_has_it(name):
    assert not _at_risk(_program(name, jnp.bfloat16))


@pytest.mark.slow
@pytest.mark.parametrize("name", toy.ZOO)
def test_no_backbone_has_it(name):
    assert not _at_risk(_program(name, jnp.bfloat16))


def test_a_scaled_product_is_the_product_times_the_number():
    layer = Linear(6, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.bias.set_value(jnp.arange(4.0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 6)), jnp.float32)
    np.testing.assert_allclose(layer.scaled(x, 0.25), 0.25 * layer(x), atol=1e-6)


def test_a_dropped_branch_is_divided_behind_a_product_with_a_bias():
    layer = Linear(6, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x, key = jnp.ones((32, 3, 6)), jax.random.key(0)
    program = jax.make_jaxpr(lambda x: drop_path(layer(x), 0.25, train=True, key=key))(x).jaxpr
    assert not _at_risk(program)
    dropped = np.asarray(drop_path(layer(x), 0.25, train=True, key=key))
    kept = np.abs(dropped).max((1, 2)) > 0
    np.testing.assert_allclose(dropped[kept], np.asarray(layer(x))[kept] / 0.75, rtol=1e-6)


def test_the_pattern_is_recognized_within_a_backbone(monkeypatch):
    monkeypatch.setattr(Linear, "scaled", lambda self, x, factor: factor * self(x))
    assert _at_risk(_program("toy_volo", jnp.float32))

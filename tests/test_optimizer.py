"""Three optimizer steps against the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.common.paths import path_name
from cion_jax.tasks.distill.task import GROUPS
from cion_jax.training import optimizer
from tests import recipe


def nested(flat):
    """PyTorch-named arrays as nested dicts with this project's leaf names; running statistics left out."""
    tree = {}
    for name, array in flat.items():
        *path, leaf = name.split(".")
        if leaf in ("running_mean", "running_var", "num_batches_tracked"):
            continue
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = jnp.asarray(array)
    return tree


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(p).replace("/", "."): np.asarray(v) for p, v in leaves}


def prefixed(arrays, prefix):
    return {n[len(prefix) :]: arrays[n] for n in arrays.files if n.startswith(prefix)}


@pytest.mark.parity
def test_equals_the_reference(fixtures):
    spec, arrays = recipe.load(fixtures / "optimiser")
    student, teacher = nested(recipe.weights(spec)), nested(recipe.weights(spec, spec["seed"] + 100))
    tx = optimizer.Optimizer("adamw", GROUPS, clip=3.0)
    state = tx.init(student)
    for i, at in enumerate(spec["steps"]):
        raw = prefixed(arrays, f"grad_raw{i}/")
        raw["head.last_layer.weight_g"] = np.zeros_like(student["head"]["last_layer"]["weight_g"])
        values = {
            "learning_rate": at["lr"],
            "weight_decay": at["wd"],
            "last_layer_trains": jnp.asarray(at["epoch"] >= spec["freeze_last_layer_epochs"]),
        }
        student, state, _ = tx.update(nested(raw), state, student, values)
        teacher = optimizer.ema(teacher, student, at["momentum"])
        for who, tree in (("student", student), ("teacher", teacher)):
            expected = prefixed(arrays, f"fp32/{who}{i}/")
            ours = flat(tree)
            assert ours.keys() <= expected.keys()
            for name, value in ours.items():
                np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=f"{who}{i} {name}")


@pytest.mark.parity
def test_clipping_equals_the_reference(fixtures):
    spec, arrays = recipe.load(fixtures / "optimiser")
    raw, used = prefixed(arrays, "grad_raw1/"), prefixed(arrays, "fp32/grad_used1/")
    clip = optimizer.clip_each(spec["clip"])
    ours, _ = clip.update(raw, clip.init(raw))
    assert sum(np.linalg.norm(g) > spec["clip"] for g in raw.values()) > 3
    for name, value in ours.items():
        np.testing.assert_allclose(value, used[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parity
def test_decay_groups_equal_the_reference(fixtures):
    spec, _ = recipe.load(fixtures / "optimiser")
    leaves = jax.tree_util.tree_leaves_with_path(nested(recipe.weights(spec)))
    tx = optimizer.Optimizer("adamw", GROUPS)
    ours = {path_name(p).replace("/", ".") for p, v in leaves if tx.decays(path_name(p), v)}
    assert ours == set(spec["groups"]["regularized"])


TWO = [optimizer.Group("bias", "bias$", learning_rate="double"), optimizer.Group("late", "late", trains="late_trains")]
AT = {"learning_rate": 0.5, "double": 1.0, "weight_decay": 0.25, "late_trains": True}


def test_sgd_by_hand():
    """v = 0.9 v + (g + wd p), the first v the gradient itself; p -= lr v; a bias at twice the rate."""
    tx = optimizer.Optimizer("sgd", [*TWO, optimizer.Group("rest", "")])
    params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([4.0])}
    state = tx.init(params)
    gradients = {"kernel": jnp.array([[1.0]]), "bias": jnp.array([1.0])}
    params, state, _ = tx.update(gradients, state, params, AT)
    np.testing.assert_allclose(params["kernel"], [[2 - 0.5 * 1.5]])
    np.testing.assert_allclose(params["bias"], [4 - 1.0 * 2.0])
    params, state, _ = tx.update(gradients, state, params, AT)
    np.testing.assert_allclose(params["kernel"], [[1.25 - 0.5 * (0.9 * 1.5 + 1.0 + 0.25 * 1.25)]], rtol=1e-5)


def test_decay_before_the_moments_and_after_them():
    """Adam's first direction is the sign of what it sees: of gradient + decay, or of the gradient alone."""
    params, gradients = {"kernel": jnp.array([[-8.0]])}, {"kernel": jnp.array([[1.0]])}
    for kind, direction in (("adam", -1.0), ("adamw", 1.0 + 0.25 * -8.0)):
        tx = optimizer.Optimizer(kind, [optimizer.Group("all", "")])
        _, _, updates = tx.update(gradients, tx.init(params), params, AT)
        np.testing.assert_allclose(updates["kernel"], [[-0.5 * direction]], rtol=1e-5)


def test_a_group_that_does_not_train_yet_has_no_past():
    tx = optimizer.Optimizer("adamw", [*TWO, optimizer.Group("rest", "")])
    params, gradients = {"late": jnp.ones((1, 1))}, {"late": jnp.full((1, 1), 3.0)}
    still, state, _ = tx.update(gradients, tx.init(params), params, AT | {"late_trains": False})
    np.testing.assert_array_equal(still["late"], params["late"])
    fresh, _, first = tx.update(gradients, tx.init(params), params, AT)
    _, _, later = tx.update(gradients, state, still, AT)
    np.testing.assert_allclose(later["late"], first["late"])
    assert fresh["late"] != params["late"]


def test_groups_cover_every_parameter():
    with pytest.raises(ValueError, match="no group of the optimizer takes kernel"):
        optimizer.Optimizer("sgd", TWO).init({"kernel": jnp.ones((1, 1))})

"""Three optimizer steps against the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.common.paths import path_name
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
    tx = optimizer.build()
    state = tx.init(student)
    for i, at in enumerate(spec["steps"]):
        raw = prefixed(arrays, f"grad_raw{i}/")
        raw["head.last_layer.weight_g"] = np.zeros_like(student["head"]["last_layer"]["weight_g"])
        values = {
            "learning_rate": at["lr"],
            "weight_decay": at["wd"],
            "last_layer_trains": jnp.asarray(at["epoch"] >= spec["freeze_last_layer_epochs"]),
        }
        student, state, _ = optimizer.update(tx, nested(raw), state, student, values)
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
    clip = optimizer._clip_each(spec["clip"])
    ours, _ = clip.update(raw, clip.init(raw))
    assert sum(np.linalg.norm(g) > spec["clip"] for g in raw.values()) > 3
    for name, value in ours.items():
        np.testing.assert_allclose(value, used[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parity
def test_decay_groups_equal_the_reference(fixtures):
    spec, _ = recipe.load(fixtures / "optimiser")
    leaves = jax.tree_util.tree_leaves_with_path(nested(recipe.weights(spec)))
    ours = {path_name(p).replace("/", ".") for p, v in leaves if optimizer.decays(p, v)}
    assert ours == set(spec["groups"]["regularized"])

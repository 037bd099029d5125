"""Another task than distillation goes through the same loop: `tests/classifier.py`, of any width, on any mesh."""

import jax
import numpy as np
import pytest

from cion_jax.common import typed_config
from cion_jax.train import train
from cion_jax.weights.load import load
from tests import classifier, toy
from tests.runs import assert_equal, final_state, numbers


def config(shards, **changes):
    values = {"data.path": str(shards), "data.batch_size": 16, "data.canvas": (32, 16), "data.threads": 2}
    values |= {"train.epochs": 4, "train.log_every": 1, "train.checkpoint_every": 100}
    return typed_config.freeze(classifier.Config, toy.changed(classifier.Config(), values, changes))


def test_it_learns_and_resumes_bit_for_bit(shards, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config(shards), whole)
    for steps in (1, 3, 0):
        train(config(shards, train__steps=steps), parts)
    assert numbers(parts) == numbers(whole)
    assert_equal(final_state(config(shards), parts), final_state(config(shards), whole), atol=0)
    losses = [row["loss"] for row in numbers(whole)]
    assert losses[-1] < losses[0]
    assert load(str(whole)).features == toy.Toy.features


@pytest.mark.parametrize(
    ("mesh", "classes"),
    [
        ({"fsdp": 2}, 751),
        ({"model": 2}, 1041),
        pytest.param({"fsdp": 2}, 1041, marks=pytest.mark.slow),
        pytest.param({"model": 2}, 751, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_width_trains_on_every_mesh(shards, tmp_path, classes, mesh, monkeypatch):
    """As on one device; neither 751 nor 1041 can be halved."""
    axes = {f"mesh__{axis}": size for axis, size in mesh.items()}
    steps = {"train__steps": 2, "classes": classes}
    train(config(shards, **steps, **axes, mesh__data=8 // 2), tmp_path / "many")
    devices = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda: devices[:1])
    train(config(shards, **steps), tmp_path / "one")
    for a, b in zip(numbers(tmp_path / "one"), numbers(tmp_path / "many"), strict=True):
        np.testing.assert_allclose([*b.values()], [*a.values()], rtol=1e-4)

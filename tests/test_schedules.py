"""Schedules against the authors' numbers."""

from functools import partial

import numpy as np
import pytest

from cion_jax.training import schedules
from cion_jax.training.schedules import cosine, from_step, steps_in
from tests import recipe, toy


@pytest.mark.parity
@pytest.mark.parametrize("name", ["lr", "weight_decay", "momentum"])
def test_equals_the_reference(fixtures, name):
    spec, arrays = recipe.load(fixtures / "schedules")
    start, end, epochs, per_epoch, warmup = spec["spec"][name]
    ours = cosine(np.arange(epochs * per_epoch), start, end, epochs * per_epoch, warmup * per_epoch)
    np.testing.assert_allclose(ours, arrays[name], rtol=0, atol=2e-6 * max(start, end))


def test_hand_computed():
    rate = partial(cosine, start=3.0, end=1.0, steps=10, warmup=4)
    np.testing.assert_allclose([rate(i) for i in range(5)], [0, 1, 2, 3, 3], rtol=1e-6)
    np.testing.assert_allclose(rate(7), 2.0, rtol=1e-6)
    np.testing.assert_allclose(cosine(5, 0.0, 1.0, 10), 0.5, rtol=1e-6)
    assert [bool(from_step(i, 2)) for i in range(4)] == [False, False, True, True]


def test_epochs_in_steps():
    """Of epochs with 4, 2 and 2 steps."""
    assert [steps_in(epochs, (4, 2, 2)) for epochs in (0, 0.5, 1, 1.5, 3)] == [0, 2, 4, 5, 8]


def test_the_schedules_of_pretraining():
    """8 images a batch; an epoch of 4 steps, two of 3; the prototypes train after half an epoch."""
    task = toy.task("anywhere", optimizer__weight_decay=(0.0, 1.0), optimizer__learning_rate=3.2)
    scheduled = task.schedules((4, 3, 3))
    at = [schedules.values(scheduled, step) for step in range(10)]
    np.testing.assert_allclose([v["learning_rate"] for v in at[:5]], [0, 0.1 / 3, 0.2 / 3, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose([at[5]["weight_decay"], at[0]["momentum"]], [0.5, 0.996], rtol=1e-6)
    assert [bool(v["last_layer_trains"]) for v in at[:4]] == [False, False, True, True]

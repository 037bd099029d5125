"""Schedules against the authors' numbers."""

import numpy as np
import pytest

from cion_jax.training.schedules import Schedules, cosine
from tests import recipe


@pytest.mark.parity
@pytest.mark.parametrize("name", ["lr", "weight_decay", "momentum"])
def test_equals_the_reference(fixtures, name):
    spec, arrays = recipe.load(fixtures / "schedules")
    start, end, epochs, per_epoch, warmup = spec["spec"][name]
    ours = cosine(np.arange(epochs * per_epoch), start, end, epochs * per_epoch, warmup * per_epoch)
    np.testing.assert_allclose(ours, arrays[name], rtol=0, atol=2e-6 * max(start, end))


def test_hand_computed():
    s = Schedules(10, 4, 2, (3.0, 1.0), (0.0, 1.0), (0.5, 1.0))
    np.testing.assert_allclose([s.at(i)["learning_rate"] for i in range(5)], [0, 1, 2, 3, 3], rtol=1e-6)
    np.testing.assert_allclose(s.at(7)["learning_rate"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(s.at(5)["weight_decay"], 0.5, rtol=1e-6)
    assert [bool(s.at(i)["last_layer_trains"]) for i in range(4)] == [False, False, True, True]

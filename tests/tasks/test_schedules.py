"""Learning rates of fine-tuning against the authors' numbers, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.tasks.supervised import schedules
from tests.tasks import reference


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "base", "warmup"),
    [("unit_warm20", 1.0, 20), ("unit_warm40", 1.0, 40), ("lr0.0032_warm20", 32e-4, 20), ("lr0.0004_warm20", 4e-4, 20)],
)
def test_transreids_epochs_equal_the_reference(fixtures, name, base, warmup):
    _, arrays = reference.load(fixtures, "transreid_schedule")
    for column, factor in enumerate((1.0, 2.0)):
        rate = jax.jit(lambda epoch, factor=factor: schedules.transreid(epoch, base, factor, warmup=warmup))
        ours = jax.vmap(rate)(jnp.arange(120))
        np.testing.assert_allclose(ours, arrays[name][:, column], rtol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("dataset", ["market1501", "msmt17"])
def test_mgns_steps_equal_the_reference(fixtures, dataset):
    spec, arrays = reference.load(fixtures, "mgn_schedule")
    of = spec[dataset]
    rate = jax.jit(
        lambda step: schedules.mgn(step, 3.5e-4, steps=of["iterations"], warmup=of["warmup"], flat=of["delay"])
    )
    ours = jax.vmap(rate)(jnp.arange(0, of["iterations"], 20))
    np.testing.assert_allclose(ours, arrays[f"{dataset}_every20"], rtol=1e-12)
    corners = np.array([int(step) for step in of["values"]])
    np.testing.assert_allclose(jax.vmap(rate)(corners), list(of["values"].values()), rtol=1e-12)


def test_transreids_rate_by_hand():
    """Warm-up of 2 of 4 epochs, base 1: 0.01, halfway to 1, then the cosine at a half and at three quarters."""
    ours = [float(schedules.transreid(epoch, 1.0, epochs=4, warmup=2)) for epoch in range(4)]
    root = np.sqrt(0.5)
    np.testing.assert_allclose(ours, [0.01, 0.505, 0.501, 0.002 + 0.499 * (1 - root)], rtol=1e-12)


def test_mgns_rate_by_hand():
    ours = [float(schedules.mgn(step, 1.0, steps=8, warmup=2, flat=4, end=0.0)) for step in range(8)]
    root = np.sqrt(0.5)
    expected = [0.01, 0.505, 1, 1, 1, (1 + root) / 2, 0.5, (1 - root) / 2]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)

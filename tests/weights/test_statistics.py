"""Statistics of other images without another function."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.weights import statistics
from cion_jax.weights.load import load
from tests import toy

NETWORK = f"random:{toy.Toy.__name__.lower()}@32x16"


@pytest.fixture(scope="module")
def images():
    return [np.random.default_rng(i).integers(0, 256, (32, 16, 3), np.uint8) for i in range(16)]


@pytest.fixture(scope="module")
def given():
    """A network whose BatchNorm has statistics of no images at all, and a scale and a bias."""
    backbone = load(NETWORK)
    rng = np.random.default_rng(0)
    norm = {"scale": rng.normal(1, 0.5, 8), "bias": rng.normal(0, 1, 8)}
    norm = {name: values.astype(np.float32) for name, values in norm.items()}
    stats = {"mean": np.full(8, 0.7, np.float32), "var": np.full(8, 3.0, np.float32)}
    return dataclasses.replace(backbone, params=backbone.params | {"bn1": norm}, stats={"bn1": stats})


def test_the_function_stays_and_the_statistics_are_those_of_the_images(given, images):
    matched = statistics.match(given, images)
    np.testing.assert_allclose(matched(images), given(images), atol=1e-5)
    values = given.preprocessing
    x = (np.stack(images) / 255 - np.array(values.mean)) / np.array(values.std)
    y = np.asarray(given.module().conv1(jnp.asarray(x, jnp.float32)))
    np.testing.assert_allclose(matched.stats["bn1"]["mean"], y.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(matched.stats["bn1"]["var"], y.var((0, 1, 2)), rtol=1e-4)
    normalized = matched.module().bn1(jnp.asarray(y), train=True)
    np.testing.assert_allclose(normalized, given.module().bn1(jnp.asarray(y), train=False), atol=1e-4)


def test_a_channel_that_never_varies_stays_finite(given, images):
    kernel = np.array(given.params["conv1"]["kernel"])
    kernel[..., 0] = 0
    dead = dataclasses.replace(given, params=given.params | {"conv1": given.params["conv1"] | {"kernel": kernel}})
    matched = statistics.match(dead, images)
    assert np.isfinite(matched(images)).all()
    np.testing.assert_allclose(matched(images), dead(images), atol=1e-5)

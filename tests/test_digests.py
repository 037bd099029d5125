"""Digests of arrays: by hand, for every changed bit, however the array lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax.training import digests


def digest(array):
    return digests.of({"it": jnp.asarray(array)})["it"]


def test_by_hand():
    """Row 0 counts once, row 1 times (2654435761 << 1 | 1) modulo 2^32."""
    assert digest(np.array([1, 2, 3], np.int32)) == 6
    assert digest(np.array([[1, 2], [3, 4]], np.int32)) == (3 + 7 * ((2654435761 << 1) % 2**32 | 1)) % 2**32
    assert digest(np.int32(-1)) == 2**32 - 1


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.int32, np.uint8, np.bool_])
def test_every_changed_bit_shows(dtype):
    numbers = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(dtype)
    whole = digest(numbers)
    for place in np.ndindex(numbers.shape):
        for bit in range(1 if dtype == np.bool_ else 8 * numbers.itemsize):
            changed = numbers.copy()
            changed.view(f"u{numbers.itemsize}")[place] ^= 1 << bit
            assert digest(changed) != whole


def test_rows_that_change_places_show():
    numbers = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert digest(numbers[[1, 0, 2, 3]]) != digest(numbers)


@pytest.mark.parametrize("spec", [P(), P("a"), P(None, "a"), P("b", "a"), P(("a", "b")), P(None, None, "a")])
def test_it_does_not_depend_on_where_the_array_lies(spec):
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    numbers = np.random.default_rng(0).normal(size=(8, 4, 12)).astype(np.float32)
    assert digest(jax.device_put(numbers, NamedSharding(mesh, spec))) == digest(numbers)

"""Digests of arrays: by hand, for every changed bit, however the array lies."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax.training import digests
from tests.conftest import QUICKLY
from tests.runs import ROOT, free_port


def digest(array):
    return digests.of({"it": jnp.asarray(array)})[0]["it"]


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


# Process i computed `unlike` and `odd` with i in one place, all else alike; each has a row of `pieces`, no copies.
UNLIKE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from cion_jax.training import digests
from cion_jax.training.checkpoint import Checkpointer
from cion_jax.training.state import TrainState

port, process, workdir = sys.argv[1:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
mesh = jax.make_mesh((2,), ("a",))

def array(own, spec=P()):
    lies, own = NamedSharding(mesh, spec), jax.device_put(np.asarray(own), jax.local_devices()[0])
    shape = (2, *own.shape[1:]) if spec else own.shape
    return jax.make_array_from_single_device_arrays(shape, lies, [own])

step, params = array(np.int32(3)), {"alike": array(np.arange(4.0)), "unlike": array([1.0, 2.0, 3.0, int(process)])}
params["odd"] = array(np.array([1, 2, int(process)], jnp.bfloat16))
state = TrainState(step, {"params": params, "pieces": array([[float(process)]], P("a"))}, {}, {})
with Checkpointer(workdir) as checkpointer:
    checkpointer.save(3, state, ("trained",), {"position": {"step": 3}, "config": {}})
with Checkpointer(workdir, read_only=True) as checkpointer:
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    state = checkpointer.restore(checkpointer.run(3), like, ("trained",))
assert state.trained["params"]["unlike"].addressable_data(0).tolist() == [1, 2, 3, 0]
assert state.trained["params"]["odd"].addressable_data(0).tolist() == [1, 2, 0]
assert state.trained["pieces"].addressable_data(0).tolist() == [[int(process)]]
assert digests.of({"unlike": state.trained["params"]["unlike"]})[1] == []
"""


def test_copies_that_differ_between_processes_are_told_and_one_is_saved(tmp_path):
    command = [sys.executable, "-c", UNLIKE, str(free_port())]
    options = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True, "env": {**os.environ, "XLA_FLAGS": QUICKLY}}
    started = [subprocess.Popen([*command, str(i), tmp_path], **options) for i in (0, 1)]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert (
        "step 3: 2 of 5 arrays differ between processes (trained/params/odd, trained/params/unlike); expected"
        in said[0]
    )

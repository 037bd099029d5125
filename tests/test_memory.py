"""Memory kept from step to step: pages that a step touches are the system's business only once."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import jax, jax.numpy as jnp
from cion_jax import memory

memory.one_step_at_a_time()
if sys.argv[1] == "kept":
    memory.keep_freed()
step = jax.jit(lambda x: jnp.sin(x) @ x[:, :8])  # holds 64 MiB: 16,384 pages
x = jnp.ones((4096, 4096))
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    """Pages that the system handed out in the last of several equal steps."""
    return int(subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone takes these settings")
def test_a_later_step_needs_no_fresh_pages():
    assert _faults("fresh") > 16_000
    assert _faults("kept") < 1_000

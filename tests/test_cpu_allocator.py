"""Memory kept from step to step: pages that a step touches are the system's business only once."""

import os
import subprocess
import sys

import pytest

STEPS = """
import itertools, resource, statistics, sys
import jax, jax.numpy as jnp
from cion_jax.distributed import cpu_allocator

cpu_allocator.one_step_at_a_time()
if sys.argv[1] == "kept":
    cpu_allocator.keep_freed()
step = jax.jit(lambda x: jnp.sin(x) @ x[:, :8])  # holds 64 MiB: 16,384 pages
x = jnp.ones((4096, 4096))
faults = []
for _ in range(9):
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(int(statistics.median(late - early for early, late in itertools.pairwise(faults))))
"""


def _faults(how: str) -> int:
    """Pages that the system hands out in most of several equal steps."""
    # One device and all optimizations, as runs on a CPU have it.
    environ = {**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, "-c", STEPS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone takes these settings")
def test_a_later_step_needs_no_fresh_pages():
    assert _faults("fresh") > 16_000
    assert _faults("kept") < 1_000

"""Memory of computations on a CPU, where the C library hands it out.

XLA asks for the memory of a step at its beginning and frees it at its end. Glibc gives such large pieces back to the
system, which zeroes every page when it is touched again: a quarter of the processor time of a training step.
"""

from __future__ import annotations

import ctypes

import jax

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # <malloc.h>


def one_step_at_a_time() -> None:
    """On a CPU a step begins when the one before has ended: begun earlier, it would hold memory of its own, twice as
    much in all, and no sooner get a processor. To be called before JAX starts."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep_freed() -> None:
    """Memory that is freed stays with this process, for its next step; does nothing where JAX does not compute on a
    CPU or the C library is not glibc. It is so for memory of the thread that calls the steps, which is nearly all where
    the CPU is one device. To be called before anything large is computed."""
    library = ctypes.CDLL(None)
    if jax.default_backend() != "cpu" or not hasattr(library, "mallopt"):
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)

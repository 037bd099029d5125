"""What the programs that are traced are to run on, where that is not what this process has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_CUDA = ContextVar("ahead of an NVIDIA GPU", default=False)


@contextlib.contextmanager
def ahead_of_cuda() -> Iterator[None]:
    """Within it what is traced may be compiled for an NVIDIA GPU on a machine that has none."""
    token = _CUDA.set(True)
    try:
        yield
    finally:
        _CUDA.reset(token)


def is_cuda_ahead() -> bool:
    """Whether this runs within `ahead_of_cuda`."""
    return _CUDA.get()

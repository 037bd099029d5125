"""Arrays larger than memory should hold: files without names, whose pages the system may take back at any time."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import numpy as np


def on_disk(shape: tuple[int, ...], dtype: type[np.generic], folder: Path) -> np.ndarray:
    """An array of zeros in a file of the folder that ends with the array; what is never written takes no space.

    Raises:
      OSError: the folder cannot be written to, or a file system without room.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape) if np.prod(shape) else np.zeros(shape, dtype)


def let_go(array: np.ndarray) -> None:
    """Gives the pages of a memory-mapped array back; they are read again when they are needed. Others stay."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)

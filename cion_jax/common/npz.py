"""Arrays of `.npz` files that nobody vouches for: no pickle, no more memory than the file can fill. Imports no JAX."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_SWELLS = 100  # times its length in the file that a member may take: numbers hardly shrink, only bombs do
_SMALL = 1 << 20  # bytes that any member may take


def names(path: Path) -> list[str]:
    """Names of the arrays; raises ValueError where this is no `.npz` file."""
    with _opened(path) as file:
        return [name.removesuffix(".npy") for name in file.namelist()]


def read(path: Path, name: str) -> np.ndarray:
    """One array, checked by its CRC-32; raises ValueError where it is not there, damaged, or no plain array."""
    with _opened(path) as file:
        if f"{name}.npy" not in file.namelist():
            raise ValueError(f"it has no array {name}")
        member = file.getinfo(f"{name}.npy")
        if member.file_size > max(_SMALL, _SWELLS * member.compress_size):
            raise ValueError(f"array {name} of {member.compress_size:,} bytes would swell to {member.file_size:,}")
        with file.open(member) as data:
            version = np.lib.format.read_magic(data)
            first = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = first(data)
        if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"array {name} of shape {shape} and type {dtype} is no plain array of its length")
        with file.open(member) as data:
            return np.lib.format.read_array(data, allow_pickle=False)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"it is damaged or no .npz file: {error}") from error

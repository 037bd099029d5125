"""Digests of arrays that do not depend on how they lie on devices and hosts.

The digest of an array is the sum, modulo 2^32, of its numbers' bits, each row (last axis) times an odd number that
follows from its place. So one changed bit always shows: it changes the sum by a power of two times an odd number. And
a process can add up what lies on its own devices.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.experimental import multihost_utils

_THREADS = 16
_MIX = np.uint32(2654435761)  # Knuth's multiplicative hash


def of(arrays: Mapping[str, jax.Array]) -> tuple[dict[str, int], list[str]]:
    """The digest of every array, by its name, and whose copies differ; the same in all processes.

    Where an array lies whole on every device, each process has a copy of its own, which its own program computed. Of
    copies that differ one counts; a process's further devices, and arrays in pieces, are not compared.

    Returns:
      (digests, names of the arrays of which two processes hold other numbers).
    """
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS)) as pool:  # NumPy adds up without holding Python
        sums = np.array(list(pool.map(_local, arrays.values())), np.uint32).reshape(1, len(arrays), 2)
    if jax.process_count() > 1:
        sums = np.asarray(multihost_utils.process_allgather(sums[0]))
    whole = sums[..., 0].sum(0, dtype=np.uint32)
    unlike = (sums[..., 1] != whole).any(0)
    digests = {name: int(number) for name, number in zip(arrays, whole, strict=True)}
    pairs = zip(arrays.items(), unlike, strict=True)
    return digests, [name for (name, array), other in pairs if other and array.is_fully_replicated]


def _local(array: jax.Array) -> tuple[np.uint32, np.uint32]:
    """The part of the sum that this process's devices hold, copies of the same numbers counting once; the sum of its
    own copy, where the array lies whole on every device."""
    if array.is_fully_replicated:
        own = _sum(array.shape, (slice(None),) * array.ndim, np.asarray(array.addressable_data(0)))
        first = array.is_fully_addressable or any(shard.replica_id == 0 for shard in array.addressable_shards)
        return own if first else np.uint32(0), own
    pieces = (shard for shard in array.addressable_shards if shard.replica_id == 0)
    sums = [_sum(array.shape, piece.index, np.asarray(piece.data)) for piece in pieces]
    return np.array(sums, np.uint32).sum(dtype=np.uint32), np.uint32(0)


def _sum(shape: tuple[int, ...], index: tuple[slice, ...], numbers: np.ndarray) -> np.uint32:
    """Of a piece of an array."""
    bits = np.ascontiguousarray(numbers).view(_unsigned(numbers.dtype))
    with np.errstate(over="ignore"):
        sums = bits.sum(-1, dtype=np.uint32) if bits.ndim else bits.astype(np.uint32)
        return (sums.astype(np.uint32) * _weights(shape, index)).sum(dtype=np.uint32)


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{min(dtype.itemsize, 4)}")


def _weights(shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """An odd number for every row of a piece, after the row's place in the whole array."""
    rows = shape[:-1]
    place = np.zeros([len(range(*cut.indices(size))) for cut, size in zip(index, rows, strict=False)], np.uint32)
    for axis, (cut, size) in enumerate(zip(index, rows, strict=False)):
        stride = np.uint32(math.prod(rows[axis + 1 :]) % 2**32)
        steps = np.arange(*cut.indices(size), dtype=np.uint32) * stride
        place = place + steps.reshape([-1 if i == axis else 1 for i in range(len(rows))])
    return (place * _MIX << np.uint32(1)) | np.uint32(1)

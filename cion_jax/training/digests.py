"""Digests of arrays that do not depend on how they lie on devices and hosts.

The digest of an array is the sum, modulo 2^32, of its numbers' bits, each row (last axis) times an odd number that
follows from its place. So one changed bit always shows: it changes the sum by a power of two times an odd number. And
a process can add up what lies on its own devices.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.experimental import multihost_utils

_THREADS = 16
_MIX = np.uint32(2654435761)  # Knuth's multiplicative hash


def of(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """The digest of every array, by its name; the same in all processes."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS)) as pool:  # NumPy adds up without holding Python
        sums = np.array(list(pool.map(_local, arrays.values())), np.uint32)
    if jax.process_count() > 1:
        sums = np.asarray(multihost_utils.process_allgather(sums)).sum(0, dtype=np.uint32)
    return {name: int(number) for name, number in zip(arrays, sums, strict=True)}


def _local(array: jax.Array) -> np.uint32:
    """The part of the sum that this process's devices hold; copies of the same numbers count once."""
    total = np.uint32(0)
    with np.errstate(over="ignore"):
        for index, numbers in _pieces(array):
            bits = np.ascontiguousarray(numbers).view(_unsigned(numbers.dtype))
            sums = bits.sum(-1, dtype=np.uint32) if bits.ndim else bits.astype(np.uint32)
            total += (sums.astype(np.uint32) * _weights(array.shape, index)).sum(dtype=np.uint32)
    return total


def _pieces(array: jax.Array) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    if len(array.sharding.device_set) == 1 and array.is_fully_addressable:  # the same at a third of the time
        yield (slice(None),) * array.ndim, np.asarray(array)
        return
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            yield shard.index, np.asarray(shard.data)


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

"""Grain input: whole identity groups, decoded, in the order of the plan, from any step on."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from cion_jax.data import records
from cion_jax.data.groups import EpochPlan, PlanError, Timeline, Units
from cion_jax.data.shards import ShardError, ShardReader, Unreadable, decode

Batch = dict[str, np.ndarray]


def batches(
    reader: ShardReader,
    units: Units,
    timeline: Timeline,
    *,
    seed: int,
    unreadable: Unreadable,
    start_step: int = 0,
    canvas: tuple[int, int] = (256, 128),
    process: tuple[int, int] = (0, 1),
    threads: int = 16,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """This process's part of every batch from `start_step` to the end of the run.

    What step s holds is a function of (data, seed, timeline, s). Every process takes a contiguous part, so the
    parts put one after another in the order of the processes are the batch that a single process would see.

    Args:
      reader: of the dataset.
      units: of the same dataset.
      timeline: of the same units.
      seed: of the identity groups.
      unreadable: counts images that cannot be decoded.
      start_step: first step.
      canvas: height and width in pixels of the canvas that images are decoded onto.
      process: (index, count) of this process.
      threads: that read and decode; 0 does it in the calling thread.
      prefetch: batches made ahead, about `canvas` x 3 bytes per image.

    Returns:
      Batches of B = batch_size / process count images, ordered as whole identity groups: `image` [B, H, W, 3]
      uint8, `size` [B, 2] int32 (height, width of the image on its canvas), `identity` [B] int64, `record` [B]
      int64.

    Raises:
      PlanError: the identity groups of a batch cannot be divided by the number of processes.
      ShardError: while iterating, too many images are unreadable.
    """
    for steps in timeline.phases(start_step):
        groups = _Groups(reader, units, timeline, seed, steps, canvas, process, unreadable)
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=max(threads, groups.per_step) if threads else 0
        )
        dataset = grain.MapDataset.source(groups).to_iter_dataset(options)
        dataset = dataset.batch(groups.per_step, batch_fn=_concatenate)
        yield from grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch)


def load_group(
    reader: ShardReader, numbers: np.ndarray, canvas: tuple[int, int], unreadable: Unreadable
) -> Batch | None:
    """Reads and decodes the records of one identity group.

    One that cannot be decoded is counted, and replaced by another of the group.

    Returns:
      A batch of len(numbers) images as `batches` describes it; None where none can be decoded.
    """
    image_KHWC = np.zeros((len(numbers), *canvas, 3), np.uint8)
    size_K2 = np.zeros((len(numbers), 2), np.int32)
    unreadable.add_images(len(numbers))
    for i, fields in enumerate(reader.read(numbers)):
        try:
            if fields is None:
                raise ValueError("damaged record")
            size_K2[i] = decode(fields[records.IMAGE], image_KHWC[i])
        except ValueError as error:
            unreadable.add_skipped(reader.where(numbers[i]), str(error))
    good, bad = np.flatnonzero(size_K2[:, 0]), np.flatnonzero(size_K2[:, 0] == 0)
    if not len(good):
        return None
    taken = np.arange(len(numbers))
    taken[bad] = np.resize(good, len(bad))
    image_KHWC[bad], size_K2[bad] = image_KHWC[taken[bad]], size_K2[taken[bad]]
    record_K = numbers[taken]
    return {"image": image_KHWC, "size": size_K2, "identity": reader.index.identity[record_K], "record": record_K}


class _Groups:
    """Grain source: the identity groups of this process in a run of steps with the same K, one per element."""

    def __init__(
        self,
        reader: ShardReader,
        units: Units,
        timeline: Timeline,
        seed: int,
        steps: range,
        canvas: tuple[int, int],
        process: tuple[int, int],
        unreadable: Unreadable,
    ):
        index, count = process
        self._in_batch = timeline.batch_size // timeline.at(steps[0]).k
        if self._in_batch % count:
            raise PlanError(
                f"{count} processes cannot share the {self._in_batch} identity groups of a batch of "
                f"{timeline.batch_size} images evenly; choose a batch size that is a multiple of "
                f"{count * timeline.at(steps[0]).k}"
            )
        self.per_step = self._in_batch // count
        self._offset = index * self.per_step
        self._reader, self._timeline, self._steps = reader, timeline, steps
        self._canvas, self._unreadable = canvas, unreadable
        self._plan = functools.lru_cache(maxsize=2)(lambda epoch, k: EpochPlan(units, seed, epoch, k))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._steps) * self.per_step

    def __getitem__(self, i: int) -> Batch:
        position = self._timeline.at(self._steps[i // self.per_step])
        with self._lock:  # or every thread would build the plan of a new epoch
            plan = self._plan(position.epoch, position.k)
        g = position.step_in_epoch * self._in_batch + self._offset + i % self.per_step
        for other in range(len(plan)):
            group = load_group(self._reader, plan.group((g + other) % len(plan)), self._canvas, self._unreadable)
            if group is not None:
                return group
        raise ShardError("no image of the dataset can be decoded; write the dataset again with data_prep")


def _concatenate(groups: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}

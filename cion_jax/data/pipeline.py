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
    rows: Sequence[tuple[int, int]] | None = None,
    threads: int = 16,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """This process's part of every batch from `start_step` to the end of the run.

    What step s holds is a function of (data, seed, timeline, s), whoever reads which part of it.

    Args:
      reader: of the dataset.
      units: of the same dataset.
      timeline: of the same units.
      seed: of the identity groups.
      unreadable: counts images that cannot be decoded.
      start_step: first step.
      canvas: height and width in pixels of the canvas that images are decoded onto.
      rows: ranges [start, stop) of the global batch's images that this process takes; None: all.
      threads: that read and decode; 0 does it in the calling thread.
      prefetch: batches made ahead, about `canvas` x 3 bytes per image.

    Returns:
      Batches of the B images in `rows`, ordered as whole identity groups: `image` [B, H, W, 3]
      uint8, `size` [B, 2] int32 (height, width of the image on its canvas), `identity` [B] int64, `record` [B]
      int64.

    Raises:
      PlanError: a range of rows cuts an identity group in two.
      ShardError: while iterating, too many images are unreadable.
    """
    rows = [(0, timeline.batch_size)] if rows is None else rows
    for steps in timeline.phases(start_step):
        groups = _Groups(reader, units, timeline, seed, steps, canvas, rows, unreadable)
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
        rows: Sequence[tuple[int, int]],
        unreadable: Unreadable,
    ):
        k = timeline.at(steps[0]).k
        if any(start % k or stop % k for start, stop in rows):
            raise PlanError(
                f"a process takes the images {', '.join(f'{a} to {b - 1}' for a, b in rows)} of a batch of "
                f"{timeline.batch_size}, which cuts identity groups of K = {k} in two; choose a batch size whose share "
                f"of every process is a multiple of {k}"
            )
        self._in_batch = timeline.batch_size // k
        self._places = np.concatenate([np.arange(start // k, stop // k) for start, stop in rows])
        self.per_step = len(self._places)
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
        g = position.step_in_epoch * self._in_batch + int(self._places[i % self.per_step])
        for other in range(len(plan)):
            group = load_group(self._reader, plan.group((g + other) % len(plan)), self._canvas, self._unreadable)
            if group is not None:
                return group
        raise ShardError("no image of the dataset can be decoded; write the dataset again with data_prep")


def _concatenate(groups: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}

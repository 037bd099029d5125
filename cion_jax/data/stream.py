"""Grain input: whole identity groups, decoded, in the order of the plan, from any step on."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grain
import numpy as np

from cion_jax.data import records
from cion_jax.data.cluster_batches import ClusterTimeline
from cion_jax.data.groups import EpochPlan, PlanError, Position, Timeline, UnitKind, Units
from cion_jax.data.image_files import FileReader
from cion_jax.data.pk_batches import PkPlan, PkTimeline
from cion_jax.data.shards import ShardError, ShardReader, Unreadable

Batch = dict[str, np.ndarray]
Rows = Sequence[tuple[int, int]]  # ranges [start, stop) of a batch's images


class Stream(Protocol):
    """The batches of a run, each a function of its step, whoever reads which part of it."""

    @property
    def digest(self) -> str:
        """Of the data; a run resumes on the data that it was trained on."""

    @property
    def labels(self) -> str:
        """Digest of the labels that stand for people in this epoch; empty where the data says who is who."""

    @property
    def batch_size(self) -> int:
        """Images in the global batch."""

    @property
    def steps_per_epoch(self) -> Sequence[int]:
        """One number for every epoch."""

    @property
    def total_steps(self) -> int:
        """Their sum."""

    def at(self, step: int) -> Position:
        """Pass through the data, place in it and K of a step in 0 .. total_steps-1."""

    def batches(self, start: int, rows: Rows | None, unreadable: Unreadable) -> Iterator[Batch]:
        """This process's part of every batch from step `start` on; see `IdentityStream.batches`."""

    def describe(self) -> str:
        """What it holds, for people."""


class Reader(Protocol):
    """Images by number: `ShardReader`, `FileReader`, `Relabeled`."""

    @property
    def index(self) -> Any:
        """Whose `identity` [N] says who is on every image."""

    def __len__(self) -> int:
        """How many there are."""

    def digest(self) -> str:
        """Of the data set."""

    def where(self, record: int) -> str:
        """File, for messages."""

    def read(self, numbers: Sequence[int] | np.ndarray) -> list[dict[str, Any] | None]:
        """Fields of the images asked for, as {field of `records`: value}; None in place of a damaged one."""

    def decode(self, data: bytes, canvas_HWC: np.ndarray) -> tuple[int, int]:
        """An image on a canvas; ValueError where it is none."""


class Plan(Protocol):
    """The identity groups of one epoch, or pass through the data, in order."""

    def __len__(self) -> int:
        """How many there are."""

    def group(self, g: int) -> np.ndarray:
        """[K] int64 record numbers of group g."""


@dataclass(frozen=True, eq=False)
class IdentityStream:
    """Identity groups from identity shards or image files: a `Stream`.

    Attributes:
      reader: of the data set.
      units: of the same data set.
      timeline: of the same units.
      plan: f(epoch, K) -> its groups.
      canvas: (height, width) in pixels of the canvas that images are decoded onto.
      threads: that read and decode; 0 does it in the calling thread.
      prefetch: batches made ahead, about `canvas` x 3 bytes per image.
      labels: see `Stream`.
    """

    reader: Reader
    units: Units
    timeline: Timeline | PkTimeline | ClusterTimeline
    plan: Callable[[int, int], Plan]
    canvas: tuple[int, int] = (256, 128)
    threads: int = 16
    prefetch: int = 2
    labels: str = ""

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        kind: UnitKind,
        epochs: int,
        batch_size: int,
        curriculum: tuple[tuple[int, int], ...],
        seed: int,
        steps_per_epoch: int = 0,
        turns: bool = False,
        canvas: tuple[int, int] = (256, 128),
        threads: int = 16,
    ) -> IdentityStream:
        """Groups in any order, of a folder of identity shards; arguments as of `Units.of`, `Timeline` and this class.

        Raises:
          ShardError, DatasetError: no complete data set there.
          PlanError: the settings contradict each other or the data.
        """
        reader = ShardReader.of_intact(path)
        units = Units.of(reader.index, kind, turns)
        timeline = Timeline(units, epochs, batch_size, curriculum, steps_per_epoch=steps_per_epoch)
        return cls(reader, units, timeline, functools.partial(EpochPlan, units, seed), canvas, threads)

    @classmethod
    def of_distinct_people(
        cls,
        reader: ShardReader | FileReader,
        *,
        epochs: int,
        batch_size: int,
        k: int,
        seed: int,
        steps_per_epoch: int | None = None,
        turns: bool = False,
        canvas: tuple[int, int] = (256, 128),
        threads: int = 16,
    ) -> IdentityStream:
        """P x K: no two groups of a batch are of one identity; arguments as of `PkTimeline` and this class.

        Args:
          steps_per_epoch: of every epoch, while passes through the data go on from epoch to epoch (FastReID: images //
            batch_size); None: every pass is an epoch (TransReID).

        Raises:
          PlanError: the settings contradict each other or the data.
        """
        units = Units.of(reader.index, "identity", turns)
        timeline = PkTimeline(units, seed, epochs, batch_size, k, steps_per_epoch=steps_per_epoch)

        def plan(number: int, k: int) -> PkPlan:
            return PkPlan(units, seed, number, batch_size // k, k)

        return cls(reader, units, timeline, plan, canvas, threads)

    @functools.cached_property
    def digest(self) -> str:
        """Of the data set."""
        return self.reader.digest()

    @property
    def batch_size(self) -> int:
        """Images in the global batch."""
        return self.timeline.batch_size

    @property
    def steps_per_epoch(self) -> tuple[int, ...]:
        """One number for every epoch; they change with K."""
        return self.timeline.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.timeline.total_steps

    def at(self, step: int) -> Position:
        """Pass through the data, place in it and K of a step in 0 .. total_steps-1."""
        return self.timeline.at(step)

    def describe(self) -> str:
        """Numbers of images and units."""
        return f"{len(self.reader):,} images of {len(self.units):,} units"

    def batches(
        self, start: int = 0, rows: Rows | None = None, unreadable: Unreadable | None = None
    ) -> Iterator[Batch]:
        """This process's part of every batch from step `start` to the end of the run.

        Args:
          start: first step.
          rows: ranges [start, stop) of the global batch's images that this process takes; None: all.
          unreadable: counts images that cannot be decoded; None: not one may be.

        Returns:
          Batches of the B images in `rows`, ordered as whole identity groups: `image` [B, H, W, 3] uint8, `size`
          [B, 2] int32 (height, width of the image on its canvas), `identity` [B] int64, `record` [B] int64.

        Raises:
          PlanError: a range of rows cuts an identity group in two.
          ShardError: while iterating, too many images are unreadable.
        """
        rows = [(0, self.batch_size)] if rows is None else rows
        unreadable = Unreadable(0) if unreadable is None else unreadable
        for steps in self.timeline.phases(start):
            groups = _Groups(self, steps, rows, unreadable)
            ahead = max(self.threads, groups.per_step) if self.threads else 0
            options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=ahead)
            dataset = grain.MapDataset.source(groups).to_iter_dataset(options)
            dataset = dataset.batch(groups.per_step, batch_fn=_concatenate)
            yield from grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=self.prefetch)


def load_group(reader: Reader, numbers: np.ndarray, canvas: tuple[int, int], unreadable: Unreadable) -> Batch | None:
    """Reads and decodes the records of one identity group.

    One that cannot be decoded is counted, and replaced by another of the group.

    Returns:
      A batch of len(numbers) images as `IdentityStream.batches` describes it; None where none can be decoded.
    """
    image_KHWC = np.zeros((len(numbers), *canvas, 3), np.uint8)
    size_K2 = np.zeros((len(numbers), 2), np.int32)
    unreadable.add_images(len(numbers))
    for i, fields in enumerate(reader.read(numbers)):
        try:
            if fields is None:
                raise ValueError("damaged record")
            size_K2[i] = reader.decode(fields[records.IMAGE], image_KHWC[i])
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

    def __init__(self, stream: IdentityStream, steps: range, rows: Rows, unreadable: Unreadable):
        k = stream.at(steps[0]).k
        if any(start % k or stop % k for start, stop in rows):
            raise PlanError(
                f"a process takes the images {', '.join(f'{a} to {b - 1}' for a, b in rows)} of a batch of "
                f"{stream.batch_size}, which cuts identity groups of K = {k} in two; choose a batch size whose share "
                f"of every process is a multiple of {k}"
            )
        self._in_batch = stream.batch_size // k
        self._places = np.concatenate([np.arange(start // k, stop // k) for start, stop in rows])
        self.per_step = len(self._places)
        self._stream, self._steps, self._unreadable = stream, steps, unreadable
        self._plan = functools.lru_cache(maxsize=2)(stream.plan)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._steps) * self.per_step

    def __getitem__(self, i: int) -> Batch:
        position = self._stream.at(self._steps[i // self.per_step])
        with self._lock:  # or every thread would build the plan of a new epoch
            plan = self._plan(position.epoch, position.k)
        g = position.step_in_epoch * self._in_batch + int(self._places[i % self.per_step])
        for other in range(len(plan)):
            records_K = plan.group((g + other) % len(plan))
            group = load_group(self._stream.reader, records_K, self._stream.canvas, self._unreadable)
            if group is not None:
                return group
        raise ShardError("no image of the dataset can be decoded; write the dataset again, or mend the files")


def _concatenate(groups: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}

"""All images of a data set after the per-video stages: one table of references, features read video by video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa

from cion_jax.common import room
from cion_jax.neighbors import cosine
from cion_jax.neighbors.linkage import Pairs, between
from data_prep.denoise.levels import Levels
from data_prep.denoise.settings import CooccurrenceSettings
from data_prep.pipeline import per_video
from data_prep.pipeline.workdir import Work

_MEMORY = 2**30  # bytes that an array may take of memory


@dataclass(frozen=True)
class ImageTable:
    """All images of a data set, videos one after another in sorted order.

    Attributes:
      work: where the files of the videos are.
      timed: see `types.Source`.
      cooccurrence: when two tracklets co-occur.
      videos: keys of all that have images.
      table: [N] rows of `per_video.REFERENCES`.
      starts: [videos + 1] first row of every video, and N.
      tracklet: [N] int64, numbered over the data set.
      tracklets: names of all tracklets, by number.
    """

    work: Work
    timed: bool
    cooccurrence: CooccurrenceSettings
    videos: Sequence[str]
    table: pa.Table
    starts: np.ndarray
    tracklet: np.ndarray
    tracklets: Sequence[str]

    @classmethod
    def load(cls, work: Work, timed: bool, cooccurrence: CooccurrenceSettings, videos: Sequence[str]) -> ImageTable:
        """Reads the references of these videos."""
        tables = [per_video.read_table(work.file(video, "arrow")) for video in videos]
        names: list[str] = []
        numbers = [np.zeros(0, np.int64)]
        for table in tables:
            own, local = per_video.tracklets(table)
            numbers.append(local + len(names))
            names += own
        starts = np.cumsum([0, *(len(table) for table in tables)])
        table = pa.concat_tables([per_video.REFERENCES.empty_table(), *tables]).unify_dictionaries().combine_chunks()
        return cls(work, timed, cooccurrence, videos, table, starts, np.concatenate(numbers), names)

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """[N] true identities (0 where unknown), and [N] bool where they are known."""
        column = self.table["truth"]
        return column.fill_null(0).to_numpy(), column.is_valid().to_numpy()

    def labeled(self, labels: np.ndarray) -> cosine.Labeled:
        """Features of all videos with these labels [N], read when they are iterated over."""
        return _Labeled(self, labels)

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """First row, end row and first tracklet of every video."""
        return map(self.span, range(len(self.videos)))

    def span(self, video: int) -> tuple[int, int, int]:
        """First row, end row and first tracklet of a video, by its number."""
        start, end = self.starts[video : video + 2].tolist()
        return start, end, int(self.tracklet[start])

    def room(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """An array of zeros; one of more than a gibibyte lies in the work folder, for as long as it lives."""
        large = math.prod(shape) * np.dtype(dtype).itemsize > _MEMORY
        return room.on_disk(shape, dtype, self.work.folder) if large else np.zeros(shape, dtype)

    @property
    def width(self) -> int:
        """How many features an image has."""
        return self.work.shape(self.videos[0])[1]

    @property
    def has_box(self) -> np.ndarray:
        """[N] bool: where in the frame the image is, is known."""
        return self.table["box"].is_valid().to_numpy()

    def kept(self, video: int, kind: str) -> Mapping[str, np.ndarray]:
        """The arrays of a `kind` file that a stage left of a video, by its number."""
        with np.load(self.work.file(self.videos[video], kind)) as arrays:
            return dict(arrays)

    def cooccurring(self) -> Iterator[Pairs]:
        """Per video, pairs of its images that cannot show one person, numbered within the video."""
        return map(self.cooccurring_in, range(len(self.videos)))

    def cooccurring_in(self, video: int) -> Pairs:
        """Those of a video, by its number."""
        start, end, first = self.span(video)
        own = self.tracklet[start:end] - first
        return per_video.cooccurring(self.work, self.videos[video], own, self.timed, self.cooccurrence)

    def cannot_link(self, group: np.ndarray) -> Pairs:
        """Distinct pairs i < j of groups, where `group` [N] has an image's group or -1, that co-occur."""
        pieces = [np.zeros((2, 0), np.int64)]
        for (start, end, _), pairs in zip(self.spans(), self.cooccurring(), strict=True):
            pieces.append(np.stack(between(group[start:end], pairs)))
        i, j = np.concatenate(pieces, axis=1)
        return i, j

    def levels(self, of_video: Iterable[Levels]) -> Levels:
        """What levels 1 and 2 did with every video, tracklets and identities numbered over the data set."""
        pieces: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Levels)}
        identities = 0
        for (_, _, first), own in zip(self.spans(), of_video, strict=True):
            own = replace(
                own,
                tracklet=np.where(own.tracklet >= 0, own.tracklet + first, -1),
                identity=np.where(own.identity >= 0, own.identity + identities, -1),
            )
            identities = max(identities, own.identity.max(initial=-1) + 1)
            for name, piece in pieces.items():
                piece.append(getattr(own, name))
        return Levels(**{name: np.concatenate(piece) for name, piece in pieces.items()})


@dataclass(frozen=True)
class _Labeled:
    of: ImageTable
    labels: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        of = self.of
        for video, (start, end, _) in zip(of.videos, of.spans(), strict=True):
            yield of.work.features(video), self.labels[start:end]

"""Reads identity shards: raw records by number, decoded onto canvases. Imports neither TensorFlow nor JAX."""

from __future__ import annotations

import json
import logging
import threading
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from cion_jax.common import images
from cion_jax.common.files import read_regular
from cion_jax.common.paths import local_path
from cion_jax.data import intact, records
from cion_jax.data.records import Index

# Random access: what lies behind the record asked for is not read ahead.
_READER_OPTIONS = "readahead_buffer_size:0"
_READER_BUFFER_BYTES = 32768
# Up to this many images the share of unreadable ones is taken of this many.
_GRACE = 1000


class ShardError(records.DatasetError):
    """Shards that are missing, cut short or do not fit their index."""


class UnreadableError(ShardError):
    """Too many records cannot be decoded."""


class ShardReader:
    """All records of one dataset by number, in the order of its index.

    Attributes:
      index: of the dataset.
    """

    def __init__(self, folder: Path | str):
        """Opens every shard and compares the number of its records with what the dataset says.

        Args:
          folder: written by data_prep.

        Raises:
          ShardError: there is no dataset in `folder`.
          ShardError: names the file that is missing or wrong, what was expected and what was got.
        """
        folder = local_path(str(folder), "the folder of the data")
        self.index = Index.load(folder)
        self._paths, lengths = _shard_files(folder)
        self._first = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        self._readers = [_open(path, n) for path, n in zip(self._paths, lengths, strict=True)]
        if len(self) != len(self.index.identity):
            raise ShardError(
                f"{folder}: {records.INDEX_FILE} knows {len(self.index.identity)} records, the shards hold "
                f"{len(self)}; write the dataset again with data_prep"
            )

    @classmethod
    def of_intact(cls, folder: Path | str) -> ShardReader:
        """A reader of a data set that is compared with its digests first (`intact.check`); raises DatasetError."""
        intact.check(local_path(str(folder), "the folder of the data"))
        return cls(folder)

    def __len__(self) -> int:
        return self._first[-1]

    def digest(self) -> str:
        """Of the index: who is on every record."""
        return self.index.digest()

    def decode(self, jpeg: bytes, canvas_HWC: np.ndarray) -> tuple[int, int]:
        """`decode` of this module, which a record's image is for."""
        return decode(jpeg, canvas_HWC)

    def where(self, record: int) -> str:
        """File and number within it, for messages."""
        shard = bisect_right(self._first, record) - 1
        return f"{self._paths[shard]}, record {record - self._first[shard]}"

    def read(self, numbers: Sequence[int] | np.ndarray) -> list[dict[str, Any] | None]:
        """Records in the order asked for, as {field of `cion_jax.data.records`: bytes (image), str or int}.

        One read per shard in the calling thread: `ArrayRecordDataSource` starts a thread pool at every call, which
        takes longer than reading the few records of an identity group (benchmarks/host_input.py).

        Returns:
          None in place of a record whose bytes are damaged.

        Raises:
          IndexError: there is no such record.
          ShardError: a record's identity is not the one that the index says.
        """
        found: list[dict[str, Any] | None] = [None] * len(numbers)
        for shard, places in self._by_shard(numbers).items():
            values = _read(self._readers[shard], [int(numbers[i]) - self._first[shard] for i in places])
            for i, value in zip(places, values, strict=True):
                found[i] = None if value is None else self._parse(value, int(numbers[i]))
        return found

    def _by_shard(self, numbers: Sequence[int] | np.ndarray) -> dict[int, list[int]]:
        """Shard -> places of its records in `numbers`."""
        places: dict[int, list[int]] = {}
        for i, number in enumerate(numbers):
            if not 0 <= number < len(self):
                raise IndexError(f"record {number} is outside the dataset's 0 .. {len(self) - 1}")
            places.setdefault(bisect_right(self._first, number) - 1, []).append(i)
        return places

    def _parse(self, value: bytes, number: int) -> dict[str, Any] | None:
        try:
            fields = parse(value)
        except (DecodeError, IndexError, UnicodeDecodeError):
            return None
        if fields[records.IDENTITY] != self.index.identity[number]:
            raise ShardError(
                f"{self.where(number)} is of identity {fields[records.IDENTITY]}, {records.INDEX_FILE} expects "
                f"{self.index.identity[number]}; both must come from one run of data_prep: copy the dataset again"
            )
        return fields


def parse(value: bytes) -> dict[str, Any]:
    """One serialized tf.train.Example -> {field: bytes (image), str or int}."""
    feature = tf_example_pb2.Example.FromString(value).features.feature
    fields: dict[str, Any] = {name: feature[name].int64_list.value[0] for name in (records.IDENTITY, records.FRAME)}
    for name in (records.KEY, records.VIDEO, records.TRACKLET):
        fields[name] = feature[name].bytes_list.value[0].decode()
    return fields | {records.IMAGE: feature[records.IMAGE].bytes_list.value[0]}


def decode(jpeg: bytes, canvas_HWC: np.ndarray) -> tuple[int, int]:
    """Decodes a JPEG into the top left corner of a canvas.

    An image that fits lies there unscaled, a larger one is scaled down until it fits, its aspect preserved. What
    the image does not cover stays as it was.

    Args:
      jpeg: bytes of one JPEG file.
      canvas_HWC: [H, W, 3] uint8, written to.

    Returns:
      Height and width of the image on the canvas.

    Raises:
      ValueError: not a JPEG, one that is damaged or cut short, or of too many pixels (`images.max_pixels`).
    """
    images.check_size(jpeg)
    return lay(simplejpeg.decode_jpeg(jpeg, colorspace="RGB"), canvas_HWC)


def lay(image: np.ndarray, canvas_HWC: np.ndarray) -> tuple[int, int]:
    """Lays an [h, w, 3] uint8 image into the top left corner of a canvas, as `decode` does."""
    scale = np.divide(canvas_HWC.shape[:2], image.shape[:2]).min()
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    canvas_HWC[:height, :width] = image
    return height, width


class Unreadable:
    """Counts and logs records that cannot be decoded, and stops the run where they are too many. Thread-safe.

    Attributes:
      images: how many images were asked for.
      skipped: how many of them could not be decoded.
    """

    def __init__(self, max_share: float):
        """Tolerates this share of the images read, of at least 1000; 0 tolerates none."""
        self.max_share = max_share
        self.images = self.skipped = 0
        self._lock = threading.Lock()

    def add_images(self, count: int) -> None:
        """Counts images that were asked for."""
        with self._lock:
            self.images += count

    def add_skipped(self, where: str, reason: str) -> None:
        """Counts and logs one that could not be decoded; raises UnreadableError when they have become too many."""
        logging.warning("skipped %s: %s", where, reason)
        with self._lock:
            self.skipped += 1
            if self.skipped > self.max_share * max(self.images, _GRACE):
                raise UnreadableError(
                    f"{self.skipped} of {self.images} images could not be decoded, expected a share of at most "
                    f"{self.max_share}; the last one is {where}: {reason}. Write the dataset again with data_prep "
                    "or mend the files, or allow a larger share as config.data.max_skipped"
                )


def _read(reader: ArrayRecordReader, positions: list[int]) -> list[bytes | None]:
    """Reads at once; where that fails one by one, so that a damaged record takes no others with it."""
    try:
        return reader.read(positions)
    except RuntimeError:
        return [_read_one(reader, position) for position in positions]


def _read_one(reader: ArrayRecordReader, position: int) -> bytes | None:
    try:
        return reader.read([position])[0]
    except RuntimeError:
        return None


def _shard_files(folder: Path) -> tuple[list[Path], list[int]]:
    """Paths and numbers of records of all shards, as ``dataset_info.json`` lists them."""
    path = folder / records.INFO_FILE
    if not path.is_file():
        raise ShardError(
            f"no {path.name} in {folder}: data_prep writes it last, so the dataset is incomplete; run data_prep again"
        )
    with records.damage(path):
        (split,) = (s for s in json.loads(read_regular(path))["splits"] if s["name"] == records.SPLIT)
        lengths = [int(n) for n in _list(split["shardLengths"])]
    stem = f"{records.DATASET_NAME}-{records.SPLIT}.array_record"
    names = [f"{stem}-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]
    return [folder / name for name in names], lengths


def _list(value: Any) -> list:
    if not isinstance(value, list) or not value:
        raise TypeError(f"got {value!r}, expected a list of numbers of records")
    return value


def _open(path: Path, expected: int) -> ArrayRecordReader:
    if not path.is_file():
        raise ShardError(f"{path} is missing, expected {expected} records in it; copy the dataset again")
    with records.damage(path, "copy the data set again"):
        reader = ArrayRecordReader(str(path), _READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER_BYTES)
        found = reader.num_records()
    if found != expected:
        raise ShardError(
            f"{path} is cut short or of another dataset: expected {expected} records, got "
            f"{found} in {path.stat().st_size} bytes; copy the dataset again"
        )
    return reader

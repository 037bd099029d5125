"""Images that are to be embedded, a part at a time: of a folder, of identity shards, of whatever registers itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.common import images
from cion_jax.common.files import read_regular
from cion_jax.common.registry import Registry
from cion_jax.data import records
from cion_jax.data.shards import ShardReader

CHUNK = 2048  # files or records of a part
_THREADS, _AHEAD = 4, 256  # that decode; images decoded ahead of the device
_RECORDS = 64  # records that are read at a time

Read = Iterator[tuple[int, str, np.ndarray | str]]
"""Place within the part, key, and the [h, w, 3] uint8 RGB image or why it cannot be read; places in any order."""


@dataclass(frozen=True)
class Part:
    """Images that are embedded, and whose features are remembered, together.

    Attributes:
      count: how many.
      state: JSON that changes when one of them does.
      read: reads them.
    """

    count: int
    state: Any
    read: Callable[[], Read]


Opener = Callable[[str, Path, Mapping[str, Any]], list[Part]]
"""From the name of a format, a folder and settings of the format to the images in it."""

OPENERS: Registry[Opener] = Registry("input", __name__, "inputs")
OPENERS.register_lazily("data_prep", "data_prep.crops:parts")


def of_files(folder: Path, paths: Sequence[Path]) -> list[Part]:
    """Image files; the key is the path relative to the folder."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    return [Part(len(some), [[str(path), *_state(path)] for path in some], _files(folder, some)) for some in chunks]


def of_shards(folder: Path) -> list[Part]:
    """All records of a folder of identity shards; the key is the record's own, `VIDEO/TRACKLET/NAME`.

    Raises:
      ShardError: shards are missing or do not fit their index.
    """
    reader = ShardReader.of_intact(folder)
    files = [[path.name, *_state(path)] for path in sorted(folder.iterdir()) if path.is_file()]
    chunks = [range(start, min(start + CHUNK, len(reader))) for start in range(0, len(reader), CHUNK)]
    return [Part(len(some), [some.start, some.stop, files], _records(reader, some)) for some in chunks]


def read_ahead(read: Callable[[int], bytes], names: Sequence[object]) -> Iterator[np.ndarray | str]:
    """Yields pictures, or why one cannot be read, in order; threads decode a bounded number ahead.

    Args:
      read: gives the bytes of a picture by its number.
      names: of all pictures, for messages.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque = deque()
        for number, name in enumerate(names):
            waiting.append(pool.submit(_try_to_read, read, number, name))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _files(folder: Path, paths: Sequence[Path]) -> Callable[[], Read]:
    def read() -> Read:
        pictures = read_ahead(lambda i: read_regular(paths[i]), paths)
        for place, (path, image) in enumerate(zip(paths, pictures, strict=True)):
            yield place, path.relative_to(folder).as_posix(), image

    return read


def _records(reader: ShardReader, numbers: range) -> Callable[[], Read]:
    def of_some(first: int) -> list[tuple[int, str, np.ndarray | str]]:
        some = numbers[first : first + _RECORDS]
        return [_record(reader, first + i, some[i], fields) for i, fields in enumerate(reader.read(some))]

    def read() -> Read:
        for found in map(of_some, range(0, len(numbers), _RECORDS)):
            yield from found

    return read


def _record(reader: ShardReader, place: int, number: int, fields: dict[str, Any] | None) -> tuple:
    if fields is None:
        return place, "", f"{reader.where(number)}: damaged"
    try:
        return place, fields[records.KEY], images.decode(fields[records.IMAGE])
    except images.PictureError as error:
        return place, fields[records.KEY], f"{reader.where(number)}: {error}"


def _try_to_read(read: Callable[[int], bytes], number: int, name: object) -> np.ndarray | str:
    try:
        return images.decode(read(number))
    except (OSError, images.PictureError) as error:
        return f"{name}: {error}"


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # whoever reads it says so
        return -1, -1
    return stat.st_size, stat.st_mtime_ns

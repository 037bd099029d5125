"""Files that are complete or absent, folders whose links are followed, reads that never wait."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
      OSError: there is none, or it is a pipe, a socket or a device: reading one of these may never end.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket"))
        kind = next((name for test, name in kinds if test(mode)), "a device")
        raise OSError(errno.EINVAL, f"got {kind}, expected a regular file", str(path))
    return Path(path).read_bytes()


def walk(root: Path, depth: int | None = None) -> Iterator[Path]:
    """Everything below a folder, sorted within each folder, without hidden names; links to folders are followed.

    A folder that is reached a second time (a link to a folder above, or two links to one folder) is not entered again.

    Args:
      root: the folder.
      depth: levels to go down; None: all.
    """
    yield from _walk(Path(root), depth, set())


def _walk(folder: Path, depth: int | None, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        inside = sorted(folder.iterdir())
    except OSError:
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for path in inside:
        if path.name.startswith("."):
            continue
        yield path
        if path.is_dir() and (depth is None or depth > 1):
            yield from _walk(path, None if depth is None else depth - 1, seen)


@contextlib.contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` that becomes `path` when the block ends without an error."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

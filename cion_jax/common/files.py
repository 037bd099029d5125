"""Files that are complete or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cion_jax.common.errors import UserError


@contextlib.contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` that becomes `path` when the block ends without an error."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, complete or not at all; what is no text in it (names can be any bytes) is escaped."""
    with finished(path) as part:
        part.write_text(text, "utf-8", errors="backslashreplace")


def replaceable(path: Path, flag: str, overwrite: bool = False) -> Path:
    """A file that may be written, and the folder that it is written to; says so before the work and not after it.

    Args:
      path: the file.
      flag: that gave it, for the message.
      overwrite: whether it may be there already.

    Raises:
      UserError: it is a folder, a device or a pipe, or it is there and is not to be replaced.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"{flag}={path} is {kind}, expected the name of a file to write")
    if path.exists() and not overwrite:
        raise UserError(f"{flag}={path} is there already; give another name, or --overwrite to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

"""Files that are complete or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


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

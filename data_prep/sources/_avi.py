"""Where an AVI file is damaged between its frames: the decoder goes on behind it and does not count what it lost."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_MOST = 200_000  # chunks that are looked at
_TAIL = 1 << 20  # bytes at the end, where the index of a file is that was written to its end
_LISTS = (b"movi", b"rec ")  # whose chunks are frames


def broken(path: Path) -> int | None:
    """The byte from which on chunks cannot be followed; None where they can, or the file is cut short or no AVI."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            has_index = b"idx1" in file.read()
            return _walk(file, size) if has_index else None
    except OSError:
        return None


def _walk(file: BinaryIO, size: int) -> int | None:
    head = _read(file, 0, 12)
    if (head[:4], head[8:]) != (b"RIFF", b"AVI "):
        return None
    at = 12
    for _ in range(_MOST):
        if at + 8 > size:
            return None
        head = _read(file, at, 12)
        if not _is_name(head[:4]):
            at -= 1  # some writers leave out the byte that fills an odd chunk up
            head = _read(file, at, 12)
        if not _is_name(head[:4]):
            return at + 1
        if head[:4] == b"idx1":
            return None
        length = int.from_bytes(head[4:8], "little")
        inside = head[:4] == b"RIFF" or (head[:4] == b"LIST" and head[8:] in _LISTS)
        before, at = at, at + (12 if inside else 8 + length + length % 2)
        if at > size:
            return before
    return None


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and name.isascii() and all(chr(sign).isalnum() or sign in b" _" for sign in name)

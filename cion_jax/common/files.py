"""Files that are complete or absent, folders whose links are followed, reads that never wait."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cion_jax.common.errors import UserError


class NotRegularError(OSError):
    """A pipe, a socket, a device or a folder in the place of a file."""


def check_regular(path: Path) -> None:
    """Raises OSError where there is no such file, or it is a pipe, a socket or a device: reading it may never end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket"))
        kind = next((name for test, name in kinds if test(mode)), "a device")
        raise NotRegularError(errno.EINVAL, f"got {kind}, expected a regular file", str(path))


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; raises OSError as `check_regular` does."""
    check_regular(path)
    return Path(path).read_bytes()


def read_text(path: Path) -> str:
    """The text of a regular file: UTF-8, or UTF-16 where a mark says so, as spreadsheets write it.

    Raises:
      UserError: names the file where it cannot be read or is of another encoding.
    """
    try:
        data = read_regular(path)
        return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8, which was expected: {error}; save it so") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


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


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, complete or not at all; what is no text in it (names can be any bytes) is escaped."""
    with finished(path) as part:
        part.write_text(text, "utf-8", errors="backslashreplace")


def replaceable(path: Path, flag: str, overwrite: bool = False, inputs: Iterable[Path] = ()) -> Path:
    """A file that may be written, and the folder that it is written to; says so before the work and not after it.

    Args:
      path: the file.
      flag: that gave it, for the message.
      overwrite: whether it may be there already.
      inputs: files that are read, or folders, of which it may not be one in any case.

    Raises:
      UserError: it is a folder, a device, a pipe or an input, it is there and is not to be replaced, or its folder
        cannot be written to.
    """
    if _there(path, flag) and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"{flag}={path} is {kind}, expected the name of a file to write")
    if path.exists() and any(_same(path, one) for one in inputs):
        raise UserError(f"{flag}={path} is one of the files that are read; give another name")
    if path.exists() and not overwrite:
        raise UserError(f"{flag}={path} is there already; give another name, or --overwrite to replace it")
    return _in_a_folder(path, flag)


def _in_a_folder(path: Path, flag: str) -> Path:
    """The path, whose folder is there and can be written to from now on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{flag}={path}: {error.filename} is no folder; give another name") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{flag}={path}: its folder cannot be written to; give another place")
    return path


def replaceable_folder(
    path: Path, flag: str, overwrite: bool, is_ours: Callable[[Path], bool], inputs: Iterable[Path] = ()
) -> Path:
    """A folder that may be written, and the one that it lies in; as `replaceable`.

    Args:
      path: the folder.
      flag: that gave it, for the message.
      overwrite: whether it may be there already.
      is_ours: whether nothing in it is lost that something else has written.
      inputs: files that are read, or folders, of which it may hold none.

    Raises:
      UserError: it is there and is not to be replaced, or it cannot be made.
    """
    if _there(path, flag):
        if not path.is_dir():
            raise UserError(f"{flag}={path} is a file, expected the name of a folder to write")
        if any(one.exists() and one.resolve().is_relative_to(path.resolve()) for one in inputs):
            raise UserError(f"{flag}={path} holds what is read; give another name")
        if not is_ours(path):
            raise UserError(f"{flag}={path} holds something else; give another name")
        if any(path.iterdir()) and not overwrite:
            raise UserError(f"{flag}={path} is there already; give another name, or --overwrite to replace it")
    return _in_a_folder(path, flag)


def _there(path: Path, flag: str) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that no file can have
        raise UserError(f"{flag}={path}: {error.strerror}; give another name") from error


def _same(path: Path, other: Path) -> bool:
    if other.is_dir():
        return path.resolve().is_relative_to(other.resolve())
    return other.exists() and path.samefile(other)

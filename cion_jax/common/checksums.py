"""SHA-256 of files, as `sha256sum` writes and checks them: `sha256sum -c SHA256SUMS` needs nothing of this project.

Formats with checksums of their own (records, zip archives, checkpoints) tell where they are damaged; these digests
cover whatever has none, and every byte of the others.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from cion_jax.common.errors import UserError
from cion_jax.common.files import check_regular, finished, read_regular
from cion_jax.common.printable import printable

SUMS = "SHA256SUMS"  # of the files of a folder
SUFFIX = ".sha256"  # of one file and its card
_LINE = re.compile(r"([0-9a-fA-F]{64})(?: [ *]([^\n\\]+))?")


class ChecksumError(UserError):
    """A file is not what was written, or its digest cannot be read."""


def write(sums: Path, files: Mapping[str, Path]) -> None:
    """Writes digests of files that lie in the folder of `sums`: name -> where its bytes are now."""
    found = _digests(list(files.values()))
    with finished(sums) as part:
        part.write_text("".join(f"{digest}  {name}\n" for name, digest in zip(files, found, strict=True)))


def read(sums: Path) -> dict[str, str]:
    """The digest of every name; empty where there is no such file. Raises ChecksumError where it is damaged."""
    if not sums.exists():
        return {}
    try:
        lines = io.StringIO(read_regular(sums).decode(), newline="\n").readlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ChecksumError(f"{sums} is damaged: {printable(error)}; copy the folder again") from error
    found = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.rstrip("\r\n"))
        name = (match and match[2]) or sums.name.removesuffix(SUFFIX)  # some write the digest alone
        if match is None or not line.endswith("\n") or not _within(name):
            raise ChecksumError(f"{sums} is damaged: line {number} is not `DIGEST  NAME`; copy the folder again")
        found[name] = match[1].lower()
    return found


def damage(sums: Path, expected: Sequence[str] = (), skip: str | None = None) -> list[str]:
    """A line for each file that is not what was written, and for each of the expected ones without a digest.

    Nothing where there are no digests at all: what was written before there were any has none. Files whose names begin
    with `skip` are not read.
    """
    try:
        known = read(sums)
    except ChecksumError as error:
        return [str(error)]
    if not sums.exists():
        return []
    unknown = [f"no digest recorded for {sums.parent / name} in {sums.name}" for name in expected if name not in known]
    looked_at = {name: digest for name, digest in known.items() if skip is None or not name.startswith(skip)}
    return [
        line for name, digest in looked_at.items() if (line := _compared(sums.parent / name, digest, sums))
    ] + unknown


def told(sums: Path, files: Sequence[str]) -> str:
    """`, no digest recorded for A, B` where there are no digests; empty where there are."""
    return "" if sums.exists() else f", no digest recorded for {', '.join(map(printable, files))}"


def check(file: Path) -> None:
    """Raises ChecksumError where a file has a digest beside it, `FILE.sha256`, and is not what was written."""
    sums = beside(file)
    digest = read(sums).get(file.name)
    wrong = _compared(file, digest, sums) if digest else ""
    if wrong:
        raise ChecksumError(wrong)


def beside(file: Path) -> Path:
    """Where the digest of one file lies."""
    return file.with_name(file.name + SUFFIX)


def _within(name: str) -> bool:
    """Whether a name stays below the folder of the digests."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _compared(file: Path, digest: str, sums: Path) -> str:
    """Why a file is not what was written; empty where it is."""
    try:
        (found,) = _digests([file])
    except FileNotFoundError:
        return f"{file}, which {sums.name} names, is missing; copy it again"
    except OSError as error:
        return f"{file} cannot be read: {printable(error)}"
    if found == digest:
        return ""
    return (
        f"{file} is not what was written: its SHA-256 is {found[:16]}..., {sums.name} expects {digest[:16]}...; copy "
        "or write it again (where it was changed on purpose, correct the digest)"
    )


def _digests(files: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_digest, files))


def _digest(file: Path) -> str:
    check_regular(file)
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

"""Embedding many files so that a killed run is not lost: chunks are kept beside the output until it is there."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.common.files import finished
from cion_jax.reid.distances import slices

CHUNK = 2048  # images whose features are kept at a time


@dataclass(frozen=True)
class Chunk:
    """Features of files that could be read, which those are, and a message for each of the others."""

    features: np.ndarray
    kept: np.ndarray
    unreadable: list[str]


def embed(
    make: Callable[[Sequence[Path], str], Any], paths: Sequence[Path], output: Path, choice: Sequence[Any]
) -> Chunk:
    """Embeds files a chunk at a time, but for those chunks that an earlier run has done.

    Args:
      make: embeds files; the text begins its progress line.
      paths: N image files. A chunk is done if its files have the sizes and times of change that they had.
      output: the file that is to be written; chunks lie in a hidden folder beside it.
      choice: what else determines the features, as JSON.
    """
    folder = _folder(output)
    folder.mkdir(exist_ok=True)
    chunks, taken = [], 0
    for number, part in enumerate(slices(len(paths), CHUNK)):
        some = paths[part]
        file = folder / f"{number:05d}-{_digest(some, choice)}.npz"
        chunk = _read(file)
        if chunk is None:
            count = f" {part.start:,} to {part.stop:,} of {len(paths):,}" if len(paths) > CHUNK else ""
            found = make(some, f"embedding{count}")
            chunk = Chunk(found.features, found.kept, found.unreadable)
            _write(file, chunk)
        else:
            taken += len(some)
        chunks.append(chunk)
    if taken:
        print(f"{taken:,} of {len(paths):,} images were embedded by an earlier run", file=sys.stderr)
    unreadable = [line for chunk in chunks for line in chunk.unreadable]
    return Chunk(np.concatenate([c.features for c in chunks]), np.concatenate([c.kept for c in chunks]), unreadable)


def forget(output: Path) -> None:
    """Removes the chunks, once the output is there."""
    shutil.rmtree(_folder(output), ignore_errors=True)


def _folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.chunks")


def _digest(paths: Sequence[Path], choice: Sequence[Any]) -> str:
    states = [[str(path), *_state(path)] for path in paths]
    return hashlib.sha256(json.dumps([list(choice), states]).encode()).hexdigest()[:16]


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # whoever embeds it says so
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _read(file: Path) -> Chunk | None:
    try:
        with np.load(file) as arrays:
            return Chunk(arrays["features"], arrays["kept"], json.loads(str(arrays["unreadable"])))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, chunk: Chunk) -> None:
    with finished(file) as part, part.open("wb") as out:
        np.savez(out, features=chunk.features, kept=chunk.kept, unreadable=json.dumps(chunk.unreadable))

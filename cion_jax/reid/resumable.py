"""Embedding many images so that a killed run is not lost: chunks are kept beside the output until it is there."""

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
from cion_jax.data.image_parts import Part


@dataclass(frozen=True)
class Chunk:
    """Features of images that could be read, their keys, and a message for each of the others."""

    features: np.ndarray
    keys: list[str]
    unreadable: list[str]


def embed(make: Callable[[Part, str], Chunk], parts: Sequence[Part], output: Path, choice: Sequence[Any]) -> Chunk:
    """Embeds a part at a time, but for those that an earlier run has done.

    Args:
      make: embeds a part; the text begins its progress line.
      parts: at least one. A part is done if its `state` is what it was.
      output: the file that is to be written; chunks lie in a hidden folder beside it.
      choice: what else determines the features, as JSON.
    """
    folder = _folder(output)
    folder.mkdir(exist_ok=True)
    chunks, taken, total, start = [], 0, sum(part.count for part in parts), 0
    for number, part in enumerate(parts):
        file = folder / f"{number:05d}-{_digest(part, choice)}.npz"
        chunk = _read(file)
        if chunk is None:
            which = f" {start:,} to {start + part.count:,} of {total:,}" if len(parts) > 1 else ""
            chunk = make(part, f"embedding{which}")
            _write(file, chunk)
        else:
            taken += part.count
        start += part.count
        chunks.append(chunk)
    if taken:
        print(f"{taken:,} of {total:,} images were embedded by an earlier run", file=sys.stderr)
    features = np.concatenate([chunk.features for chunk in chunks])
    return Chunk(features, [k for c in chunks for k in c.keys], [line for c in chunks for line in c.unreadable])


def forget(output: Path) -> None:
    """Removes the chunks, once the output is there."""
    shutil.rmtree(_folder(output), ignore_errors=True)


def _folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.chunks")


def _digest(part: Part, choice: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps([list(choice), part.state]).encode()).hexdigest()[:16]


def _read(file: Path) -> Chunk | None:
    try:
        with np.load(file) as arrays:
            return Chunk(arrays["features"], *(json.loads(str(arrays[name])) for name in ("keys", "unreadable")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(file: Path, chunk: Chunk) -> None:
    with finished(file) as part, part.open("wb") as out:
        np.savez(out, features=chunk.features, keys=json.dumps(chunk.keys), unreadable=json.dumps(chunk.unreadable))

"""The fields of an identity shard: all that the two halves of the project know of each other. Imports no JAX.

An identity-shard folder is a TFDS folder (``dataset_info.json``, ``features.json``) with ArrayRecord files. The
images of one identity are stored next to each other; within an identity they are sorted by video, tracklet and
frame. Beside the shards lie ``index.npz`` (which record belongs to whom), ``provenance.parquet`` (where every
input image came from and what became of it), ``metrics.json``, ``report.html``, ``README.md`` (the data card) and
``croissant.json`` (its description for machines).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.common.errors import UserError
from cion_jax.common.files import finished, read_regular
from cion_jax.common.printable import printable

DATASET_NAME = "identity_shards"
SPLIT = "train"

# Fields of one record (a tf.train.Example in the TFDS layout).
IMAGE = "image"  # JPEG bytes
KEY = "key"  # utf-8, unique in the dataset
IDENTITY = "identity"  # int64, 0 .. identities-1
VIDEO = "video"  # utf-8
TRACKLET = "tracklet"  # utf-8, as the tracker named it, unique within its video
FRAME = "frame"  # int64, frame number in the video, -1 where unknown

INFO_FILE = "dataset_info.json"
INDEX_FILE = "index.npz"
PROVENANCE_FILE = "provenance.parquet"
METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"
CARD_FILE = "README.md"
CROISSANT_FILE = "croissant.json"
REJECTED_FILE = "rejected.jsonl"
FEATURES_FILE = "features.json"
FILES = (
    *(INFO_FILE, FEATURES_FILE, INDEX_FILE, PROVENANCE_FILE, METRICS_FILE, REPORT_FILE, CARD_FILE, CROISSANT_FILE),
    REJECTED_FILE,
)

# What readers raise on bytes that are not what was written.
_DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    RuntimeError,
)
_DAMAGED += (SyntaxError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


class DatasetError(UserError):
    """A folder of identity shards that is incomplete or damaged."""


def is_data(path: Path) -> bool:
    """Whether a path is a folder of identity shards, or what is left of one."""
    return path.is_dir() and any((path / name).exists() for name in (INFO_FILE, INDEX_FILE))


@dataclass(frozen=True)
class Index:
    """Which identity and which source tracklet every record belongs to, in record order.

    Attributes:
      identity: [N] int64, non-decreasing, every value of 0 .. identities-1 occurs.
      tracklet: [N] int64, one number per (video, tracklet).
    """

    identity: np.ndarray
    tracklet: np.ndarray

    def __post_init__(self) -> None:
        """Raises ValueError where the arrays cannot be an index."""
        if self.identity.shape != self.tracklet.shape or self.identity.ndim != 1 or not len(self.identity):
            raise ValueError(
                f"an index needs two equally long, non-empty 1-D arrays, got identity {self.identity.shape} and "
                f"tracklet {self.tracklet.shape}; write the dataset again with data_prep"
            )
        steps = np.diff(self.identity)
        if self.identity[0] != 0 or np.any((steps != 0) & (steps != 1)):
            raise ValueError(
                "identities must be numbered 0, 1, 2, ... in record order, got a jump or a decrease; "
                "write the dataset again with data_prep"
            )

    @property
    def identities(self) -> int:
        """Number of identities."""
        return int(self.identity[-1]) + 1

    @property
    def take_turns(self) -> bool:
        """Whether tracklets can take turns: an identity has several, one of them of several images."""
        different, tracklet = np.unique(self.tracklet, return_inverse=True)
        pairs = np.unique(self.identity.astype(np.int64) * len(different) + tracklet)
        tracklets = np.bincount(pairs // len(different))
        return bool(((tracklets > 1) & (np.bincount(self.identity) > tracklets)).any())

    def digest(self) -> str:
        """SHA-256 of the arrays: the same data gives the same digest on every machine."""
        digest = hashlib.sha256()
        for array in (self.identity, self.tracklet):
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        return digest.hexdigest()

    def save(self, folder: Path, confidence: np.ndarray | None = None) -> None:
        """Writes ``index.npz`` into an identity-shard folder; the [identities] confidence where it is estimated."""
        arrays: dict[str, Any] = {"identity": self.identity.astype("<i8"), "tracklet": self.tracklet.astype("<i8")}
        if confidence is not None:
            arrays["confidence"] = np.asarray(confidence, "<f8")
        with finished(folder / INDEX_FILE) as part, part.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, folder: Path) -> Index:
        """Reads ``index.npz``; raises DatasetError naming what to run where there is none."""
        path = Path(folder) / INDEX_FILE
        if not path.is_file():
            raise DatasetError(
                f"no {INDEX_FILE} in {folder}: expected a folder written by `python -m data_prep --output=...`"
            )
        with damage(path):
            identity, tracklet = _arrays(path, "identity", "tracklet")
            return cls(identity, tracklet)


def confidence(folder: Path) -> np.ndarray | None:
    """[identities] float64 estimated share of right pairs of every identity; None where it was not estimated."""
    path = Path(folder) / INDEX_FILE
    with damage(path), np.load(path, allow_pickle=False) as arrays:
        return arrays["confidence"] if "confidence" in arrays.files else None


@contextlib.contextmanager
def damage(path: Path, remedy: str = "write the data set again with data_prep") -> Iterator[None]:
    """Around the reading of a file of a data set: what goes wrong in it is damage, said with the file's name.

    Raises:
      DatasetError: in place of whatever a reader raises where its bytes are not what was written.
    """
    try:
        yield
    except UserError:
        raise
    except PermissionError:
        raise
    except _DAMAGED as error:
        said = printable(f"{type(error).__name__}: {error}")
        raise DatasetError(f"{path} is damaged: {said}; {remedy}") from error


def _arrays(path: Path, *names: str) -> Iterator[np.ndarray]:
    """Arrays of whole numbers of an .npz that `Index.save` wrote: nothing in it is compressed.

    Every member is read whole, so that its CRC-32 is looked at before anything is made of it.
    """
    data = read_regular(path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise ValueError("it holds a name twice")
        for name in names:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(data):
                raise ValueError(f"{name} is compressed")
            array = np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
            if array.dtype != np.int64:
                raise ValueError(f"{name} is {array.dtype}, expected int64")
            yield array

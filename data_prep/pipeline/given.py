"""Features that somebody else has made, instead of an extractor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cion_jax.common import npz
from cion_jax.common.errors import UserError
from cion_jax.neighbors import cosine
from data_prep.types import Image

_KEYS, _FEATURES = ("keys", "paths", "key", "path"), ("features", "feature")  # as `cion_jax.embed` and others have it
_EXPECTED = "expected .npz or .parquet with `keys` (texts) and `features` (a row of numbers each)"


class FeaturesError(UserError):
    """A file of features that cannot be used."""


class GivenFeatures:
    """Features of a file, by the key of an image ("<video>/<tracklet>/<name>") or its path below the input folder.

    So a folder of crops can be embedded by `cion_jax.embed`, or by anything that writes such a file.

    Attributes:
      name: as given.
      digest: SHA-256 of the file.
    """

    def __init__(self, file: str):
        """Reads the file; raises FeaturesError where it holds something else."""
        path = Path(file)
        if not path.is_file():
            raise FeaturesError(f"no features at {path}; {_EXPECTED}")
        self.name = f"features:{file}"
        with path.open("rb") as data:
            self.digest = hashlib.file_digest(data, "sha256").hexdigest()
        keys, features = (_parquet if path.suffix == ".parquet" else _npz)(path)
        if features.ndim != 2 or len(features) != len(keys) or features.dtype.kind not in "fiu":
            raise FeaturesError(
                f"{path} has {len(keys):,} keys and features {features.dtype} {list(features.shape)}; {_EXPECTED}"
            )
        self._row = {key: i for i, key in enumerate(keys)}
        if len(self._row) < len(keys):
            raise FeaturesError(
                f"{path} has keys that occur twice, {len(keys) - len(self._row):,} of them; {_EXPECTED}"
            )
        self._features = features

    def knows(self, image: Image) -> bool:
        """Whether there are features of this image."""
        return image.key in self._row or image.path in self._row

    def of(self, images: Sequence[Image]) -> np.ndarray:
        """[n, d] float32 features of images that it knows, L2-normalized."""
        rows = [self._row[image.key if image.key in self._row else image.path] for image in images]
        return cosine.unit(self._features[rows], np.float32, 0)


def _npz(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        there = npz.names(path)
        keys = npz.read(path, _one(_KEYS, there)).tolist()
        return [_text(key) for key in keys], npz.read(path, _one(_FEATURES, there))
    except (ValueError, TypeError) as error:
        raise FeaturesError(f"{path}: {error}; {_EXPECTED}") from error


def _parquet(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        there = pq.read_schema(path).names
        keys, features = _one(_KEYS, there), _one(_FEATURES, there)
        table = pq.read_table(path, columns=[keys, features])
        rows = table[features].to_pylist()
        return [_text(key) for key in table[keys].to_pylist()], np.array(rows, np.float32).reshape(len(rows), -1)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise FeaturesError(f"{path}: {error}; {_EXPECTED}") from error


def _one(wanted: Sequence[str], there: Sequence[str]) -> str:
    for name in wanted:
        if name in there:
            return name
    raise ValueError(f"it has no array {wanted[0]}, it holds {', '.join(there) or 'nothing'}")


def _text(key: object) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)

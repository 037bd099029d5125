"""Features in files, of this program (`cion_jax.embed`) or of any other: `.npz` or `.parquet`.

A `.npz` holds `keys` (or `paths`), N texts, and `features`, [N, d]. A `.parquet` has a column `key` (or `path`) of
texts and a column `feature` (or `features`) of lists of d numbers. A key is a path relative to the images' folder, or
a file name where these are unique.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.common import npz
from cion_jax.common.errors import UserError
from cion_jax.common.files import finished
from cion_jax.common.printable import utf8

SUFFIXES = (".npz", ".parquet")
_KEYS, _FEATURES = ("keys", "paths", "key", "path"), ("features", "feature")


class FeatureFileError(UserError):
    """A file that does not hold features, or not those that are needed."""


class FeatureFile:
    """Features by key.

    Attributes:
      keys: N texts.
      features: [N, d] float32.
      about: what `write` was told of them; empty for a file of another program.
    """

    def __init__(self, path: Path):
        """Reads a file; raises FeatureFileError where it is missing, of another form, or its widths differ."""
        if not path.is_file():
            raise FeatureFileError(f"no file of features {path}; expected a .npz or .parquet file")
        check_name(path)
        self.path, self.about = path, about(path)
        keys, features = (_npz if path.suffix == ".npz" else _parquet)(path)
        if features.ndim == 4 and features.shape[2:] == (1, 1):  # as networks with a pooling layer at the end give them
            features = features[:, :, 0, 0]
        if keys.ndim != 1 or features.ndim != 2 or len(keys) != len(features) or features.dtype.kind not in "fiu":
            raise FeatureFileError(
                f"{path} holds {keys.size} keys and features {features.shape} {features.dtype}, expected N keys and "
                "[N, d] numbers; all features have one width"
            )
        self.keys = [key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key) for key in keys]
        with np.errstate(over="ignore"):
            self.features = np.asarray(features, np.float32)
        paths = [_plain(key) for key in self.keys]
        self._row = {key: row for row, key in enumerate(paths)}
        if len(self._row) < len(paths):
            raise FeatureFileError(f"{path} has {len(paths) - len(self._row)} keys twice; every image has one row")
        names = [Path(key).name for key in paths]
        self._name = {name: row for row, name in enumerate(names)} if len(set(names)) == len(names) else {}

    def rows(self, paths: Sequence[Path]) -> np.ndarray:
        """[n] int64 row of every image, -1 where there is none: by the longest end of its path that is a key.

        Raises:
          FeatureFileError: none of the images is there.
        """
        found = np.array([self._find(path) for path in paths], np.int64)
        if len(found) and (found < 0).all():
            raise FeatureFileError(
                f"{self.path} has no features of any of {len(found)} images; got keys like {self.keys[:1]}, expected "
                f"keys like {paths[0].parent.name}/{paths[0].name}"
            )
        return found

    def _find(self, path: Path) -> int:
        parts = path.parts
        for start in range(len(parts)):
            row = self._row.get(_plain("/".join(parts[start:]).replace("//", "/")))
            if row is not None:
                return row
        return self._name.get(_plain(path.name), -1)


def _plain(key: str) -> str:
    """A key as all of its spellings are: Windows has backslashes, `find` a dot before it, names can be any bytes."""
    return utf8(key).replace("\\", "/").removeprefix("./")


def about(path: Path) -> dict[str, Any]:
    """What a file says of its features, if it says anything; no feature is read."""
    try:
        if path.suffix == ".npz":
            text = str(npz.read(path, "meta"))
        else:
            text = (_arrow(path)[1].read_schema(path).metadata or {})[b"cion_jax"].decode()
        found = json.loads(text)
    except (OSError, ValueError, KeyError, EOFError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_name(path: Path) -> None:
    """Raises FeatureFileError where a name is not that of a file of features."""
    if path.suffix not in SUFFIXES:
        raise FeatureFileError(f"{path} ends in {path.suffix!r}, expected a .npz or .parquet file")


def write(path: Path, keys: Sequence[str], features: np.ndarray, about: dict[str, Any]) -> None:
    """Writes a file that `FeatureFile` reads, complete or not at all; `about` is JSON.

    A `.npz` holds it as `meta`, a `.parquet` in the metadata of its schema under `cion_jax`.
    """
    check_name(path)
    with finished(path) as part, part.open("wb") as file:
        if path.suffix == ".npz":
            np.savez(file, keys=np.array(keys, np.str_), features=features, meta=json.dumps(about))
        else:
            pa, pq = _arrow(path)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
            table = pa.table({"key": pa.array(map(utf8, keys), pa.string()), "feature": lists})
            pq.write_table(table.replace_schema_metadata({"cion_jax": json.dumps(about)}), file)


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        there = npz.names(path)
        return npz.read(path, _one(path, _KEYS, there)), npz.read(path, _one(path, _FEATURES, there))
    except ValueError as error:
        if isinstance(error, FeatureFileError):
            raise
        raise FeatureFileError(f"{path} cannot be read as a .npz file of plain arrays: {error}") from error


def _parquet(path: Path) -> tuple[np.ndarray, np.ndarray]:
    pa, pq = _arrow(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise FeatureFileError(f"{path} cannot be read as a Parquet file: {error}") from error
    keys = table.column(_one(path, _KEYS, table.column_names)).to_numpy()
    lists = table.column(_one(path, _FEATURES, table.column_names)).combine_chunks()
    if not (
        pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type) or pa.types.is_fixed_size_list(lists.type)
    ):
        raise FeatureFileError(f"{path}: features are {lists.type}, expected lists of numbers")
    lengths = np.unique(lists.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) != 1:
        raise FeatureFileError(f"{path} has features of {len(lengths)} widths ({lengths[:5].tolist()}), expected one")
    return keys, lists.flatten().to_numpy(zero_copy_only=False).reshape(len(keys), int(lengths[0]))


def _one(path: Path, wanted: Sequence[str], there: Sequence[str]) -> str:
    found = [name for name in wanted if name in there]
    if not found:
        raise FeatureFileError(
            f"{path} holds {', '.join(there) or 'nothing'}, expected one called {' or '.join(wanted)}"
        )
    return found[0]


def _arrow(path: Path) -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`, which `.npz` files do without."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FeatureFileError(f"{path} needs pyarrow ({error}); pip install 'cion-jax'") from error
    return pyarrow, pyarrow.parquet

"""A gallery that can be searched: unit features as float16 in a memory map beside the file that they came from.

Exact up to a million rows: every row is compared, a block at a time, in float32. Above, ScaNN, and how much of the
exact answer it finds is measured and said. Shape suffixes: N rows, Q queries, D feature dimensions, K answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cion_jax.common import checksums
from cion_jax.common.errors import UserError
from cion_jax.common.files import finished
from cion_jax.neighbors import search
from cion_jax.neighbors.cosine import unit
from cion_jax.reid.distances import slices
from cion_jax.reid.feature_file import FeatureFile

EXACT = 1_000_000  # rows up to which all are compared
_BLOCK, _THREADS, _TRIED = 1024, 2, 100  # rows of a block; threads; rows whose exact answer tells the recall
_NUMBERS = 7 * 2**16  # of a block that is compared: OpenBLAS begins threads of its own at 460,800, which hinder ours
_SHIFT = np.float32(2.0**112)  # between the exponents of float16 and float32


class GalleryError(UserError):
    """An index that cannot answer."""


@dataclass(frozen=True)
class Index:
    """Rows to be found.

    Attributes:
      keys: N texts.
      rows_ND: float16 of length 1, or 0 where a feature points nowhere.
    """

    keys: list[str]
    rows_ND: np.ndarray

    @classmethod
    def of(cls, keys: Sequence[str], features_ND: np.ndarray) -> Index:
        """Of features in memory, N texts and [N, D] numbers; raises GalleryError where one of these is not finite."""
        bad = np.flatnonzero(~np.isfinite(features_ND).all(axis=1))
        if len(bad):
            raise GalleryError(f"{len(bad)} features are not finite, the first of {keys[bad[0]]}")
        return cls(list(keys), unit(features_ND, features_ND.dtype, 0).astype(np.float16))

    def search(self, query_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, str]:
        """The k nearest rows of every query.

        Args:
          query_QD: features.
          k: at most N answers.

        Returns:
          ([Q, K] int64 rows, nearest first, equally near ones in their order; [Q, K] cosine distances; how it was
          done, for people).

        Raises:
          GalleryError: another width, or a query that is not finite.
        """
        if query_QD.shape[1] != self.rows_ND.shape[1]:
            raise GalleryError(
                f"the queries have {query_QD.shape[1]} features, the index {self.rows_ND.shape[1]}; embed both "
                "with the same checkpoint"
            )
        bad = np.flatnonzero(~np.isfinite(query_QD).all(axis=1))
        if len(bad):
            raise GalleryError(f"features of query {bad[0]} are not finite; {len(bad)} of {len(query_QD)} are not")
        unit_QD, k = unit(query_QD, np.float32, 0), min(k, len(self.keys))
        if len(self.keys) > EXACT:
            return self._approximate(unit_QD, k)
        return *exact(self.rows_ND, unit_QD, k), f"exact, {len(self.keys):,} rows"

    def grouped(self) -> Index:
        """One row, the mean, for every folder of keys: a tracklet's images lie in one folder."""
        folders = [str(PurePosixPath(key).parent) for key in self.keys]
        if set(folders) == {"."}:
            raise GalleryError(f"no key of the index lies in a folder, got {self.keys[0]!r}; tracklets are folders")
        names, group = np.unique(folders, return_inverse=True)
        total = np.zeros((len(names), self.rows_ND.shape[1]), np.float32)
        for rows in slices(len(group), _BLOCK):
            np.add.at(total, group[rows], self.rows_ND[rows].astype(np.float32))
        return Index(names.tolist(), unit(total, total.dtype, 0).astype(np.float16))

    def _approximate(self, unit_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, str]:
        import scann  # only now: it takes TensorFlow

        rows_ND = self.rows_ND.astype(np.float32)
        searcher = search.approximate(scann, rows_ND, k)
        found, similarity = searcher.search_batched_parallel(unit_QD)
        tried = np.random.default_rng(0).choice(len(rows_ND), min(_TRIED, len(rows_ND)), replace=False)
        recall = _recall(searcher.search_batched_parallel(rows_ND[tried])[0], exact(self.rows_ND, rows_ND[tried], k)[0])
        said = f"ScaNN, {len(self.keys):,} rows, finds {100 * recall:.1f}% of the exact {k} ({len(tried)} rows tried)"
        return found.astype(np.int64), 1 - similarity, said


def opened(path: Path) -> Index:
    """Opens a file of features as an index; its memory map is made once and again when the file changes.

    Raises:
      FeatureFileError: no features there.
      GalleryError: features that are not finite.
    """
    folder = path.with_name(f"{path.name}.index")
    stat = path.stat() if path.is_file() else None
    state = stat and {"size": stat.st_size, "changed": stat.st_mtime_ns}
    about = folder / "index.json"
    known = _known(folder) if state and _of(about) == state else None
    if known is None:
        file = FeatureFile(path)
        bad = np.flatnonzero(~np.isfinite(file.features).all(axis=1))
        if len(bad):
            raise GalleryError(f"{path} has {len(bad)} rows that are not finite, the first of {file.keys[bad[0]]}")
        folder.mkdir(exist_ok=True)
        with finished(folder / "rows.npy") as part, part.open("wb") as out:
            np.save(
                out, np.concatenate([unit(file.features[r], np.float32, 0).astype(np.float16) for r in _blocks(file)])
            )
        checksums.write(checksums.beside(folder / "rows.npy"), {"rows.npy": folder / "rows.npy"})
        with finished(about) as part:
            part.write_text(json.dumps({"of": state, "keys": file.keys}))
        known = Index(file.keys, np.load(folder / "rows.npy", mmap_mode="r"))
    return known


def _known(folder: Path) -> Index | None:
    """The index of a folder; None where its files are damaged."""
    try:
        checksums.check(folder / "rows.npy")
        keys, rows = (
            json.loads((folder / "index.json").read_text())["keys"],
            np.load(folder / "rows.npy", mmap_mode="r"),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    fits = isinstance(keys, list) and rows.dtype == np.float16 and rows.ndim == 2 and len(rows) == len(keys)
    return Index(keys, rows) if fits else None


def _of(about: Path) -> object:
    """What an index says that it was made of; None where it says nothing that can be read."""
    try:
        return json.loads(about.read_text())["of"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def exact(rows_ND: np.ndarray, unit_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """([Q, K] the nearest rows, [Q, K] their cosine distances), from float16 rows compared in float32."""
    parts = list(slices(len(rows_ND), -(-len(rows_ND) // _THREADS)))
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda part: _nearest(rows_ND, part, unit_QD, k), parts))
    number, distance = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
    return _first(number, distance, k)


def _nearest(rows_ND: np.ndarray, part: slice, unit_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of a part of the rows; fewer than k where the part has fewer."""
    number = [np.zeros(0, np.int64)] * len(unit_QD)
    distance = [np.zeros(0, np.float32)] * len(unit_QD)
    shifted_QD, block = unit_QD * _SHIFT, max(_NUMBERS // rows_ND.shape[1], 1)
    wide_BD = np.empty((block, rows_ND.shape[1]), np.float32)
    for start in range(part.start, part.stop, block):
        rows_BD = rows_ND[start : min(start + block, part.stop)]
        apart_QB = 1 - shifted_QD @ _widened(rows_BD, wide_BD[: len(rows_BD)]).T
        for query, apart_B in enumerate(apart_QB):
            bound = distance[query][-1] if len(distance[query]) == k else np.inf
            near = np.flatnonzero(apart_B < bound)
            if len(near) > 2 * k:  # with all that are as near as the last
                near = near[apart_B[near] <= np.partition(apart_B[near], k - 1)[k - 1]]
            if len(near):
                number[query] = np.concatenate([number[query], near + start])
                distance[query] = np.concatenate([distance[query], apart_B[near]])
                order = np.argsort(distance[query], kind="stable")[:k]
                number[query], distance[query] = number[query][order], distance[query][order]
    return np.stack(number), np.stack(distance)


def _widened(rows_BD: np.ndarray, wide_BD: np.ndarray) -> np.ndarray:
    """Fills and returns `wide_BD`, [B, D] float32: exactly 2^-112 times the finite float16 rows.

    The bits are moved to where float32 has them, all but the exponent's offset. NumPy's own conversion takes six times
    as long, longer than reading the rows.
    """
    bits_BD = wide_BD.view(np.int32)
    np.copyto(bits_BD, rows_BD.view(np.int16))
    np.left_shift(bits_BD, 13, out=bits_BD)
    np.bitwise_and(bits_BD, np.int32(-0x70000001), out=bits_BD)  # of the sign's copies the first stays
    return wide_BD


def _first(number: np.ndarray, distance: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(number, order, axis=1), np.take_along_axis(distance, order, axis=1)


def _recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, wanted, strict=True)]))


def _blocks(file: FeatureFile) -> Sequence[slice]:
    return list(slices(len(file.features), _BLOCK))

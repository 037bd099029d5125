"""MARS, tracklets: Zheng et al., "MARS: A Video Benchmark for Large-Scale Person Re-identification", ECCV 2016.

`info/` holds `test_name.txt` (one file name a line), `tracks_test_info.mat` (a row per tracklet: first and last line,
from 1; identity; camera) and `query_IDX.mat` (rows of the tracklets that are queries, from 1). Images lie in
`bbox_test/IDENTITY/`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from cion_jax.common.files import read_text
from cion_jax.reid.benchmarks.base import JUNK, REGISTRY, RULES, Benchmark, BenchmarkError, Images, Reader, listed

EXAMPLE = "0001C1T0001F001.jpg"


def read(folder: Path) -> Benchmark:
    """Reads a folder that holds `info` and `bbox_test`; features of a tracklet's images are averaged."""
    names = _lines(folder / "info" / "test_name.txt")
    rows = _matrix(folder / "info" / "tracks_test_info.mat").astype(np.int64)
    if rows.ndim != 2 or rows.shape[1] != 4 or rows[:, 1].max() > len(names) or rows[:, 0].min() < 1:
        raise BenchmarkError(
            f"tracks_test_info.mat holds {rows.shape}, expected [tracklets, 4] with lines 1 .. {len(names)} of "
            "test_name.txt in the first two columns"
        )
    query = _matrix(folder / "info" / "query_IDX.mat").ravel().astype(np.int64) - 1
    if not len(query) or query.min() < 0 or query.max() >= len(rows):
        raise BenchmarkError(f"query_IDX.mat names {len(query)} tracklets, expected numbers in 1 .. {len(rows)}")
    others = np.setdiff1d(np.arange(len(rows)), query)
    protocol = f"tracklets, the mean of their images' features; {RULES}"
    parts = [_tracklets(folder, names, rows[part]) for part in (query, others)]
    return Benchmark("mars", protocol, query=parts[0], gallery=parts[1])


def _tracklets(folder: Path, names: list[str], rows: np.ndarray) -> Images:
    used = rows[rows[:, 2] != JUNK]
    # Junk is called 00-1; a folder is called like the first four characters of a name.
    paths = [folder / "bbox_test" / name[:4] / name for start, stop, *_ in used for name in names[start - 1 : stop]]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        where = folder / "bbox_test"
        raise BenchmarkError(
            f"{len(missing)} of {len(paths)} images of {len(used)} tracklets are not in {where}; expected files like "
            f"0001/{EXAMPLE}, missing: {listed(missing)}"
        )
    unit = np.repeat(np.arange(len(used)), used[:, 1] - used[:, 0] + 1)
    return Images(tuple(paths), used[:, 2], used[:, 3], unit, len(rows) - len(used))


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise BenchmarkError(f"no {file}; expected names like {EXAMPLE}, one a line")
    return read_text(file).split()


def _matrix(file: Path) -> np.ndarray:
    """The one array of a MATLAB file."""
    try:
        arrays = [value for name, value in scipy.io.loadmat(file).items() if not name.startswith("__")]
    except (OSError, ValueError, TypeError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise BenchmarkError(
            f"{file} cannot be read as a MATLAB file: {error}; take it from MARS's evaluation"
        ) from error
    if len(arrays) != 1:
        raise BenchmarkError(f"{file} holds {len(arrays)} arrays, expected one")
    return np.asarray(arrays[0])


REGISTRY.register("mars", Reader(read))

"""Milliseconds of a query among a million rows: `python -m benchmarks.search [--rows=1000000] [--widths=512,2048]`.

Made-up features as float16 in a memory map, as `cion_jax.search` keeps them; the 20 nearest of one query at a time, of
different queries. Ours compares all rows in float32 on two threads; the rival is what one writes in NumPy, row blocks
cast to float32, of the size that is fastest for it (of 256 to 16,384 rows of 512). Both give the same answers, which is
checked. The file is in the page cache after the first query.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks.common import header, median_seconds, table
from cion_jax.reid import index

TOP, _BLOCK, _NUMBERS = 20, 4096, 2**18  # answers; rows that are made at once; numbers of the rival's blocks


def _made(file: Path, rows: int, width: int) -> np.ndarray:
    """[rows, width] float16 of length 1, as a memory map."""
    g = np.random.default_rng(0)
    made_ND = np.lib.format.open_memmap(file, "w+", np.float16, (rows, width))
    for start in range(0, rows, _BLOCK):
        some_BD = g.standard_normal((min(_BLOCK, rows - start), width), np.float32)
        made_ND[start : start + _BLOCK] = some_BD / np.linalg.norm(some_BD, axis=1, keepdims=True)
    made_ND.flush()
    return np.load(file, mmap_mode="r")


def _rival(rows_ND: np.ndarray, query_1D: np.ndarray) -> np.ndarray:
    """[TOP] nearest rows."""
    block = _NUMBERS // rows_ND.shape[1]
    starts = range(0, len(rows_ND), block)
    distance = np.concatenate([1 - rows_ND[s : s + block].astype(np.float32) @ query_1D[0] for s in starts])
    near = np.argpartition(distance, TOP)[:TOP]
    return near[np.argsort(distance[near], kind="stable")]


def _ours(rows_ND: np.ndarray, query_1D: np.ndarray) -> np.ndarray:
    return index.exact(rows_ND, query_1D, TOP)[0][0]


def _row(folder: Path, rows: int, width: int) -> tuple:
    rows_ND = _made(folder / f"{width}.npy", rows, width)
    queries = np.random.default_rng(1).standard_normal((8, 1, width), np.float32)
    queries /= np.linalg.norm(queries, axis=2, keepdims=True)
    same = np.array_equal(_ours(rows_ND, queries[0]), _rival(rows_ND, queries[0]))
    walls = [_milliseconds(run, rows_ND, queries, time.perf_counter) for run in (_ours, _rival)]
    busy = _milliseconds(_ours, rows_ND, queries, time.process_time)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return f"{rows:,} x {width}", *(f"{wall:.0f}" for wall in walls), f"{busy:.0f}", f"{peak:.1f}", same


def _milliseconds(run: Callable, rows_ND: np.ndarray, queries: np.ndarray, clock: Callable[[], float]) -> float:
    waiting = iter([*queries] * 4)
    return 1000 * median_seconds(lambda: run(rows_ND, next(waiting)), repeats=7, clock=clock)


def main(_: list[str]) -> None:
    header("search among all rows, one query at a time")
    with tempfile.TemporaryDirectory(dir=flags.FLAGS.folder) as folder:
        columns = ["rows", "ours, ms", "rival, ms", "ours, processor ms", "peak GB", "same answers"]
        widths = map(int, flags.FLAGS.widths)
        table(columns, (_row(Path(folder), flags.FLAGS.rows, width) for width in widths))


if __name__ == "__main__":
    flags.DEFINE_integer("rows", 1_000_000, "Rows of the gallery.")
    flags.DEFINE_list("widths", ["512", "2048"], "Widths of the features; the file takes 2 bytes a number.")
    flags.DEFINE_string("folder", None, "Where the file is written; None: the system's folder for such.")
    app.run(main)

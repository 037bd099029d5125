"""Anybody's benchmark: folders `query` and `gallery` with names that a pattern reads, or a table.

A table is a CSV with the columns `path,identity,camera` and, where it lists both parts, `split` (query or gallery).
Either one file `images.csv` with all four columns, or `query.csv` and `gallery.csv`. Paths are relative to the folder.
Identities and cameras may be any texts; identity 0 is a distractor and -1 junk.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

from cion_jax.common.errors import UserError
from cion_jax.common.files import read_text
from cion_jax.common.patterns import compiled
from cion_jax.common.printable import printable, utf8
from cion_jax.reid.benchmarks.base import (
    DISTRACTOR,
    JUNK,
    REGISTRY,
    RULES,
    Benchmark,
    BenchmarkError,
    Images,
    Reader,
    images_in,
    kept,
    listed,
)

PATTERN = r"(?P<id>-?\w+?)_c(?P<cam>\w+?)[_.].*"
_DIGITS = 18  # of a number that arrays hold
_PARTS = ("query", "gallery")
_COLUMNS = ("path", "identity", "camera")

Row = tuple[Path, str, str]


def read(folder: Path, *, pattern: str = PATTERN) -> Benchmark:
    """Reads tables where there are some, else folders.

    Args:
      folder: with `images.csv`, or `query.csv` and `gallery.csv`, or folders `query` and `gallery`.
      pattern: regular expression (RE2) of whole file names with groups `id` and `cam`.
    """
    tables = {part: folder / f"{part}.csv" for part in _PARTS}
    if (folder / "images.csv").is_file():
        rows = _one_table(folder / "images.csv")
    elif any(table.is_file() for table in tables.values()):
        rows = {part: [row for row, _ in _table(table, _COLUMNS)] for part, table in tables.items()}
    else:
        return _folders(folder, _compiled(pattern))
    return _benchmark({part: (some, ()) for part, some in rows.items()}, f"the tables of {folder}")


def _folders(folder: Path, pattern: Any) -> Benchmark:
    parts = {}
    for part in _PARTS:
        files = images_in(folder / part, f"0001_c2_anything.jpg, or {part}.csv, or images.csv")
        matches = [(path, pattern.fullmatch(utf8(path.name))) for path in files]
        unnamed = tuple(path for path, match in matches if not match)
        if len(unnamed) == len(files):
            raise BenchmarkError(
                f"the pattern {pattern.pattern!r} reads none of {len(files)} names in {folder / part}: "
                f"{listed(files)}; give --pattern=REGEX of whole names with groups (?P<id>...) and (?P<cam>...)"
            )
        parts[part] = [(path, match["id"], match["cam"]) for path, match in matches if match], unnamed
    return _benchmark(parts, f"{folder}, read by {pattern.pattern!r}")


def _benchmark(parts: dict[str, tuple[list[Row], tuple[Path, ...]]], where: str) -> Benchmark:
    everything = [row for rows, _ in parts.values() for row in rows]
    for part, (rows, _) in parts.items():
        _check_once([path for path, _, _ in rows], f"{part} of {where}")
    _check_once([path for path, _, _ in {*everything}], f"{where}, as of two people or cameras")
    people = _numbers([row[1] for row in everything])
    cameras = _numbers([row[2] for row in everything])
    made: dict[str, Images] = {}
    for part, (rows, unnamed) in parts.items():
        found = [(path, people[identity], cameras[camera]) for path, identity, camera in rows]
        made[part] = kept(found, unnamed, f"{part} of {where}")
    return Benchmark("folder", RULES, made["query"], made["gallery"])


def _check_once(paths: list[Path], where: str) -> None:
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise BenchmarkError(f"{len(twice)} pictures occur twice in {where}: {listed(twice)}; leave one of each out")


def _numbers(texts: list[str]) -> dict[str, int]:
    """Numbers for texts: as they are where all are numbers (0012 is 12), else counted from 1; 0 and -1 keep theirs."""
    if all(re.fullmatch(r"-?\d+(\.0+)?", text) and len(text) < _DIGITS for text in texts):  # 7.0: of a data frame
        return {text: int(text.partition(".")[0]) for text in texts}
    fixed = {str(number): number for number in (DISTRACTOR, JUNK)}
    return {text: number for number, text in enumerate(sorted(set(texts) - set(fixed)), 1)} | fixed


def _one_table(file: Path) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {part: [] for part in _PARTS}
    for row, split in _table(file, (*_COLUMNS, "split")):
        if split in rows:
            rows[split].append(row)
        elif split != "train":
            raise BenchmarkError(f"{file}: the split of {row[0].name} is {split!r}, expected query, gallery or train")
    return rows


def _table(file: Path, columns: tuple[str, ...]) -> list[tuple[Row, str]]:
    if not file.is_file():
        raise BenchmarkError(f"no {file}, though its counterpart is there; expected columns {', '.join(columns)}")
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(read_text(file), newline="")) if row] or [[]]
    except csv.Error as error:
        raise BenchmarkError(f"{file} is no CSV: {error}; expected columns {', '.join(columns)}") from error
    names = [name.strip().lower() for name in header]
    lacking, got = [column for column in columns if column not in names], printable(", ".join(header))
    if lacking or len(set(names)) < len(names):
        what = f"lacks {', '.join(lacking)}" if lacking else "has a column twice"
        raise BenchmarkError(f"{file} {what}; got columns {got}, expected {', '.join(columns)} between commas")
    wrong = [number for number, row in enumerate(rows, 2) if len(row) != len(names)]
    if wrong:
        raise BenchmarkError(
            f"{file}, line {wrong[0]}: got {len(rows[wrong[0] - 2])} fields, the header has {len(names)}; put what "
            "has a comma in quotes"
        )
    lines = [dict(zip(names, row, strict=True)) for row in rows]
    return [(_row(file, number, line), line.get("split", "").strip().lower()) for number, line in enumerate(lines, 2)]


def _row(file: Path, number: int, line: dict[str, str]) -> Row:
    path, identity, camera = (line[column].strip() for column in _COLUMNS)
    if not (path and identity and camera):
        raise BenchmarkError(f"{file}, line {number}: got {line}, expected a path, an identity and a camera")
    if not (file.parent / path).is_file():
        raise BenchmarkError(f"{file}, line {number}: there is no {file.parent / path}")
    return file.parent / path, identity, camera


def _compiled(pattern: str) -> Any:
    try:
        found = compiled(pattern, "--pattern")
    except UserError as error:
        raise BenchmarkError(str(error)) from error
    lacking = [f"(?P<{group}>...)" for group in ("id", "cam") if group not in found.groupindex]
    if lacking:
        raise BenchmarkError(f"--pattern={pattern!r} lacks {' and '.join(lacking)}, which read identity and camera")
    return found


REGISTRY.register("folder", Reader(read, {"pattern": ()}))

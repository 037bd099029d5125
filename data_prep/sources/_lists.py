"""Entries of annotation lists: JSON, JSON lines, CSV, or texts of `path id`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cion_jax.common.errors import UserError
from cion_jax.common.files import read_text
from data_prep.sources.pictures import is_picture
from data_prep.types import SourceError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
# Names of what is needed, the plainest first: where a list has a person's id and an `id`, that is the entry's.
PATHS = ("file_path", "img_path", "image_path", "filepath", "path", "image", "img", "file_name", "filename", "file")
IDENTITIES = ("pid", "person_id", "identity", "identity_id", "id", "person", "label")
EXPECTED = '{"file_path": ..., "id": ...}'


class Fraction(str):
    """A number with a decimal point as it was written: `7.0` of a table that had gaps is a whole number."""


class Entry(NamedTuple):
    """One entry: where it stands, its path and id as they came, or why there are none."""

    where: str
    path: object = None
    identity: object = None
    wrong: str = ""


def load(file: Path) -> Iterator[Entry]:
    """Entries of a list in their order.

    Raises:
      SourceError: the file cannot be read, or is no list at all.
    """
    text = _text(file)
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        yield from _table(file, text)
        return
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _json_lines(file, text)
        return
    try:
        found = _loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:
            yield from _json_lines(file, text)
            return
        where = f"{file}: line {error.lineno}, column {error.colno}"
        raise SourceError(f"{where}: {error.msg}; expected a JSON list") from error
    except (RecursionError, ValueError) as error:  # of a number with thousands of digits, too
        raise SourceError(f"{file}: {error}; expected a JSON list of {EXPECTED}") from error
    for i, entry in enumerate(_entries(file, found)):
        yield _entry(f"{file}[{i}]", entry)


def _text(file: Path) -> str:
    try:
        return read_text(file)
    except UserError as error:
        raise SourceError(str(error)) from error


def _loads(text: str) -> Any:
    return json.loads(text, parse_float=Fraction, object_pairs_hook=_object)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"an entry has a name twice: {short([name for name, _ in pairs])}")
    return found


def _entries(file: Path, found: Any) -> Sequence[Any]:
    """The list itself, or the only list of entries that an object holds."""
    if isinstance(found, list):
        return found
    if isinstance(found, dict) and {"images", "annotations"} <= found.keys():
        raise SourceError(
            f"{file}: got COCO's format, where an id is a picture's or a box's number; expected a list of {EXPECTED} "
            "with the person's id, one entry for each crop"
        )
    lists = [value for value in found.values() if isinstance(value, list)] if isinstance(found, dict) else []
    lists = [value for value in lists if value and isinstance(value[0], dict) and _name(value[0], PATHS)]
    if len(lists) != 1:
        raise SourceError(f"{file}: got a JSON {type(found).__name__}, expected a list of {EXPECTED}")
    return lists[0]


def _json_lines(file: Path, text: str) -> Iterator[Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield _entry(f"{file}:{number}", _loads(line))
        except (ValueError, RecursionError) as error:
            yield Entry(f"{file}:{number}", wrong=f"got {short(line)}, expected a line {EXPECTED}: {error}")


def _table(file: Path, text: str) -> Iterator[Entry]:
    """CSV with a header, or lines of a path and an id."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    mark = next((mark for mark in "\t;," if mark in first), " ")
    try:
        rows = list(csv.reader(lines, delimiter=mark, skipinitialspace=True))
    except csv.Error as error:
        raise SourceError(f"{file}: {error}; expected columns file_path and id") from error
    header = [name.strip().lower() for name in next(filter(any, rows), [])]
    names = dict.fromkeys(header)
    if _name(names, PATHS) is None and header and not is_picture(Path(header[0])):
        raise SourceError(f"{file}: got columns {', '.join(header)[:120]}, expected file_path and id among them")
    twice = ", ".join(sorted({name for name in header if name and header.count(name) > 1}))
    if twice and _name(names, PATHS) is not None:
        raise SourceError(f"{file}: got two columns called {twice[:120]}; expected one of each, or none is sure")
    started = _name(names, PATHS) is None
    for number, row in enumerate(rows, 1):
        if not any(row):
            continue
        if not started:
            started = True
            continue
        where = f"{file}:{number}"
        if any(row[len(header) :]) and _name(names, PATHS) is not None:
            yield Entry(where, wrong=f"got {short(row)}, {len(row)} fields, the header has {len(header)}")
        elif _name(names, PATHS) is not None:
            yield _entry(where, dict(zip(header, row, strict=False)))
        elif len(row) < 2:
            yield Entry(where, wrong=f"got {short(row)}, expected a path and an id")
        else:
            yield Entry(where, row[0].strip(), row[-1].strip() if len(row) == 2 else row[1].strip())


def _entry(where: str, entry: object) -> Entry:
    if isinstance(entry, dict):
        path, identity = _name(entry, PATHS), _name(entry, IDENTITIES)
        if path is not None and identity is not None:
            return Entry(where, entry[path], entry[identity])
    return Entry(where, wrong=f"got {short(entry)}, expected {EXPECTED}")


def _name(entry: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in entry), None)


def short(value: object) -> str:
    """At most 80 characters of a value, for messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""Which rows of a track text are people: the column that holds a class, and the classes that mean a person."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.config import MotConfig
from data_prep.sources._rows import Row, Table, is_person
from data_prep.sources.mottext import GROUND_TRUTH_TAIL, PEDESTRIAN, as_class

FIRST_COLUMN = 7  # of what stands behind the box, counted from 1
ANY = "any"
_SEARCHED = 4  # columns behind the box in which a class is looked for
# Share of a track's rows that have its most frequent class: in the column that is made for it trackers let it flicker.
_FLICKERS, _CONSTANT = 0.8, 0.95
_ASKED = 2000  # rows, evenly chosen, that say whether a column holds words
_MOST = 1000  # of a class's number
_LABEL = 0  # "column" of formats that say which it is


@dataclass(frozen=True)
class Classes:
    """What was found.

    Attributes:
      column: of the class, counted from 1; 0 where the format says which it is; None where there is none.
      people: the classes of people as `as_class` writes them; None: all rows count.
      why: the evidence, in words.
      problem: what cannot be decided, in words; empty where all is decided.
    """

    column: int | None = None
    people: frozenset[str] | None = None
    why: str = ""
    problem: str = ""

    def of(self, row: Row) -> str:
        """The class of a row; empty where it has none."""
        return _value(row, self.column)

    def admits(self, row: Row) -> bool:
        """Whether a row is a person."""
        return self.people is None or self.of(row) in self.people


def find(table: Table, settings: MotConfig, names: Sequence[str] = ()) -> Classes:
    """Finds the class column and the classes of people.

    Args:
      table: the rows.
      settings: what the user says.
      names: of classes, from a labels.txt beside the text.
    """
    if settings.classes is not None:
        return _said(table, settings)
    if not table.rows:
        return Classes()
    names = tuple(names) or table.names
    column = _column(table) if settings.class_column is None else settings.class_column
    if column is None:
        return Classes(why="no class column")
    counts = Counter(_value(row, column) for row in table.rows)
    found = _of_benchmark(table, column, counts, names) or _by_names(column, counts, names)
    return found or _undecided(column, counts)


def _said(table: Table, settings: MotConfig) -> Classes:
    if settings.classes == ANY:
        return Classes(why="config.mot.classes=any")
    column = settings.class_column
    if column is None:
        column = _column(table)
    if column is None and all(len(row.tail) > 1 for row in table.rows):
        column = FIRST_COLUMN + 1
    people = frozenset(as_class(name) for name in str(settings.classes).split(","))
    if column is None and table.rows:
        problem = f"config.mot.classes={settings.classes} is set, and no column of {table.path} looks like a class"
        return Classes(None, people, problem=f"{problem}; say which it is, --config.mot.class_column=8")
    return Classes(column, people, f"config.mot.classes={settings.classes}, {_name(column)}")


def _column(table: Table) -> int | None:
    """The column that holds a class, counted from 1; None where none looks like it."""
    rows = table.rows
    if any(row.label for row in rows):
        return _LABEL
    if table.flagged and all(len(row.tail) in GROUND_TRUTH_TAIL for row in rows):
        return None if all(as_class(row.tail[1]) == "-1" for row in rows) else FIRST_COLUMN + 1
    columns = range(FIRST_COLUMN, FIRST_COLUMN + _SEARCHED)
    some = rows[:: max(1, len(rows) // _ASKED)]
    words = (column for column in columns if sum(_is_word(_value(row, column)) for row in some) > len(some) / 2)
    order = (FIRST_COLUMN + 1, FIRST_COLUMN, FIRST_COLUMN + 2, FIRST_COLUMN + 3)
    flag = FIRST_COLUMN if table.flagged else None
    numbers = (column for column in order if column != flag and _looks_like_class(rows, column))
    return next(words, None) or next(numbers, None)


def _looks_like_class(rows: Sequence[Row], column: int) -> bool:
    """Small whole numbers, more than one of them, that hardly change within a track; or one that is no default."""
    if not all(value.isdecimal() and int(value) <= _MOST for value in (_value(row, column) for row in rows)):
        return False
    values = {_value(row, column) for row in rows}
    if len(values) == 1:
        return column == FIRST_COLUMN + 1 and not values <= {"0", "1"}
    of_track: dict[int, Counter[str]] = defaultdict(Counter)
    for row in rows:
        of_track[row.track][_value(row, column)] += 1
    long = [counts for track, counts in of_track.items() if track >= 0 and counts.total() > 1]
    if not long:
        return column == FIRST_COLUMN + 1
    constant = sum(max(counts.values()) for counts in long) / sum(counts.total() for counts in long)
    return constant >= (_FLICKERS if column == FIRST_COLUMN + 1 else _CONSTANT)


def _of_benchmark(table: Table, column: int, counts: Counter[str], names: Sequence[str]) -> Classes | None:
    """Classes whose meaning a format defines."""
    if table.people is not None:
        return Classes(column, table.people, f"{table.format}: {_list(table.people)} are people")
    ground_truth = table.flagged and column == FIRST_COLUMN + 1 and not names
    if ground_truth and all(len(row.tail) in GROUND_TRUTH_TAIL for row in table.rows):
        if PEDESTRIAN in counts and "0" not in counts:
            return Classes(column, frozenset({PEDESTRIAN}), f"MOTChallenge: class 1 is a pedestrian ({_count(counts)})")
        problem = (
            f"column 8 of ground truth has classes {_count(counts)}, where MOTChallenge counts from 1, a pedestrian"
        )
        return Classes(column, problem=f"{problem}; say which are people, e.g. --config.mot.classes=0")
    return None


def _by_names(column: int, counts: Counter[str], names: Sequence[str]) -> Classes | None:
    """Classes whose names say what they are, in the rows themselves or in a list."""
    if all(not name.lstrip("-").isdecimal() for name in counts):
        people = frozenset(name for name in counts if is_person(name))
        if people or not any(map(_is_word, counts)):
            return Classes(column, people or None, f"classes by name: {_count(counts)}")
        problem = f"no class in {_name(column)} is called a person: {_count(counts)}"
        return Classes(column, problem=f"{problem}; say which are people, e.g. --config.mot.classes={min(counts)!r}")
    if names and all(name.isdecimal() for name in counts):
        return _by_list(column, counts, names)
    if column == _LABEL and len(counts) == 1 and set(counts) <= {"0", "1"}:
        return Classes(column, None, f"a single class, {_count(counts)}")
    return None


def _by_list(column: int, counts: Counter[str], names: Sequence[str]) -> Classes:
    """Numbers of a list: from 1 as CVAT writes MOT texts, from 0 where 0 occurs (YOLO's own formats)."""
    used = {int(number) for number in counts}
    first = 0 if 0 in used or column == _LABEL else 1
    listed = {str(i): name for i, name in enumerate(names, first)}
    people = frozenset(number for number, name in listed.items() if is_person(name))
    if max(used) >= first + len(names) or not people:
        problem = f"{_name(column)} has classes {_count(counts)}, the list beside it names {_list(names)}"
        return Classes(column, problem=f"{problem}; say which are people, e.g. --config.mot.classes=1")
    called = ", ".join(f"{number}: {name}" for number, name in listed.items())
    return Classes(column, people, f"classes by the list beside the text, {called} ({_count(counts)})")


def _undecided(column: int, counts: Counter[str]) -> Classes:
    likely = min(counts, key=lambda name: (len(name), name))
    problem = (
        f"{_name(column)} looks like a class ({_count(counts)}): either it is one, then say which classes are people, "
        f"e.g. --config.mot.classes={likely}, or it is none, --config.mot.classes={ANY}"
    )
    return Classes(column, problem=problem)


def _value(row: Row, column: int | None) -> str:
    if column is None:
        return ""
    if column == _LABEL:
        return as_class(row.label)
    at = column - FIRST_COLUMN
    return as_class(row.tail[at]) if at < len(row.tail) else ""


def _is_word(name: str) -> bool:
    return name not in ("nan", "none", "null", "inf") and sum(map(str.isalpha, name)) > 2


def _name(column: int | None) -> str:
    return "the class" if not column else f"column {column}"


def _count(counts: Counter[str]) -> str:
    return ", ".join(f"{name or 'nothing'}: {number} boxes" for name, number in counts.most_common(6))


def _list(names: Sequence[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names) if isinstance(names, frozenset) else names)

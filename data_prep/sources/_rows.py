"""Rows of track texts as they are written, before anything is decided about what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cion_jax.common.files import read_regular
from data_prep.types import Reject, SourceError

UNTRACKED = -1
_MINUS_ONE = (2**32 - 1, 2**64 - 1)  # -1 of trackers that write unsigned numbers
_EXACT = 2**53  # whole numbers beyond it are not all kept by a floating-point number
_LONGEST, _LARGEST = 40, 1e7  # digits of an id; pixels of a coordinate
_LAST_FRAME = 2**31
_HEAD = 1000  # bytes that tell the encoding of a text
PEOPLE = frozenset(
    {"person", "persons", "people", "pedestrian", "pedestrians", "ped", "human", "humans", "man", "woman", "child"}
    | {"boy", "girl", "walker", "person_sitting"}
)

Rectangle = tuple[float, float, float, float]


class Row(NamedTuple):
    """One box as written.

    Attributes:
      frame: number of the frame, from wherever the text counts.
      track: id, `UNTRACKED` for a box of none.
      box: four numbers; whether sizes, corners or centers is decided by `reading`.
      tail: what stands behind the box, as texts.
      label: the class by name or number where the format says which column it is, else "".
      line: where it stands; the line for a text, the file for a folder of texts.
    """

    frame: int
    track: int
    box: Rectangle
    tail: tuple[str, ...] = ()
    label: str = ""
    line: str = ""


@dataclass(frozen=True)
class Table:
    """All rows of one text, or of a folder of texts.

    Attributes:
      path: the text or the folder.
      format: its name, for people.
      rows: usable rows in their order.
      rejects: the others, each with file and line.
      box: form of the boxes where the format defines it (see `reading.FORMS`), else None.
      first_frame: number of the first frame where the format defines it, else None.
      flagged: whether 0 in the first column behind the box says that a row does not count, as in ground truth.
      people: classes of people where the format defines them, else None.
      names: what a list beside the text calls the classes, from 0.
      doubt: why it cannot be told where its columns begin; empty where it can.
    """

    path: Path
    format: str
    rows: list[Row]
    rejects: list[Reject] = field(default_factory=list)
    box: str | None = None
    first_frame: int | None = None
    flagged: bool = False
    people: frozenset[str] | None = None
    names: tuple[str, ...] = ()
    doubt: str = ""

    @cached_property
    def _prefix(self) -> str:
        return f"{self.path}{'/' if self.path.is_dir() else ':'}"

    def where(self, row: Row) -> str:
        """File and line of a row."""
        return f"{self._prefix}{row.line}"


def text_of(path: Path) -> str:
    """A text file's content, UTF-8 or UTF-16, marked or not; raises SourceError where it is no regular file."""
    try:
        data = read_regular(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if wide else _unmarked(data), errors="replace")


def _unmarked(data: bytes) -> str:
    """The encoding of a text without UTF-16's mark: digits and commas have a zero beside them in UTF-16."""
    zeros = data[:_HEAD:2].count(0), data[1:_HEAD:2].count(0)
    if min(zeros) == 0 and max(zeros) > len(data[:_HEAD]) / 4:
        return "utf-16-be" if zeros[0] else "utf-16-le"
    return "utf-8-sig"


def whole(token: str) -> int:
    """An exact whole number, written as "12", "12.0" or "1.2e1".

    Raises:
      ValueError: it is none, or its last digits were lost when it was written: an exponent with too few digits, or a
        decimal point behind more than 2^53.
    """
    if len(token) > _LONGEST or not token.isascii() or "_" in token:
        raise ValueError("a whole number of at most 40 characters was expected")
    try:
        return int(token)
    except ValueError:
        pass
    try:
        value = Decimal(token)
    except InvalidOperation as error:
        raise ValueError("a whole number was expected") from error
    if not value.is_finite() or value.adjusted() > _LONGEST or value != value.to_integral_value():
        raise ValueError("a whole number was expected")
    if value and value.adjusted() >= len(value.as_tuple().digits):
        raise ValueError("digits were lost when it was written, as %g does")
    if abs(value) >= _EXACT:
        raise ValueError("it went through a floating-point number, which loses the last digits")
    return int(value)


def track_id(token: str) -> int:
    """A track's id; `UNTRACKED` for all ways to write that there is none. Raises ValueError as `whole` does."""
    if token.lower() in ("", "nan", "none", "null", "-"):
        return UNTRACKED
    number = whole(token)
    return UNTRACKED if number < 0 or number in _MINUS_ONE else number


def frame_number(token: str) -> int:
    """A frame number from 0; raises ValueError."""
    number = whole(token)
    if not 0 <= number < _LAST_FRAME:
        raise ValueError("a frame number from 0 was expected")
    return number


def rectangle(tokens: Sequence[str]) -> Rectangle:
    """Four finite coordinates; raises ValueError."""
    a, b, c, d = map(float, tokens)
    if not all(math.isfinite(value) and abs(value) < _LARGEST for value in (a, b, c, d)):
        raise ValueError("four finite numbers of pixels were expected")
    return a, b, c, d


def is_person(label: str) -> bool:
    """Whether a class is called as people are."""
    return label.strip().lower().replace(" ", "_") in PEOPLE

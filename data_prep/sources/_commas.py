"""Commas in numbers: decimal commas between commas, and numbers in quotes."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from data_prep.sources._rows import Row

_LOOKED_AT = 1000  # rows
_SOME, _MOST = 0.05, 0.9  # shares of the rows
_SMALL = 2  # pixels, below which no person is
_QUOTED = re.compile(r'"([^"]*)"')
_DECIMAL = re.compile(r"\s*-?\d+,(\d{1,2}|\d{4,})\s*")
_THOUSANDS = re.compile(r"\s*-?\d{1,3}(,\d{3})+\.\d*\s*")


def unquoted(line: str) -> str:
    """A line whose numbers in quotes have no comma: "10,5" is 10.5, "1,234.5" is 1234.5, "1,234" is no number."""
    return _QUOTED.sub(_plain, line) if '"' in line else line


def _plain(quoted: re.Match[str]) -> str:
    number = quoted[1]
    if _THOUSANDS.fullmatch(number):
        return number.replace(",", "")
    return number.replace(",", "." if _DECIMAL.fullmatch(number) else "?")


def doubt(rows: Sequence[Row]) -> str:
    """What to say where numbers between commas may have decimal commas: all are whole, and too many.

    Args:
      rows: of a text whose columns are separated by commas.
    """
    some = list(itertools.islice(rows, _LOOKED_AT))
    if not some or not all(map(_is_whole, some)):
        return ""
    lengths = Counter(len(row.tail) for row in some)
    others = lengths.total() - max(lengths.values())
    halves = [row for row in some if _may_be_halves(row)]
    if len(halves) > _MOST * len(some):
        shown, (left, top, width, height) = halves[0], _joined(halves[0])
        second = f"left {left}, top {top}, width {width}, height {height}"
    elif others > max(1, _SOME * len(some)):
        shown, (least, most) = some[0], (min(lengths), max(lengths))
        second = f"what cannot be told, as rows have {6 + least} to {6 + most} columns"
    else:
        return ""
    first = "left {:g}, top {:g}, width {:g}, height {:g}".format(*shown.box)
    return (
        "commas may stand between columns or in numbers, all of which are whole: by the first reading line "
        f"{shown.line} is {first}, by the second {second}; write the numbers with points or the columns with "
        "semicolons between them, or say --config.mot.box=xywh where the first is right"
    )


def _is_whole(row: Row) -> bool:
    return all(map(float.is_integer, row.box)) and all(each.lstrip("-").isdecimal() for each in row.tail if each)


def _may_be_halves(row: Row) -> bool:
    """Whether eight numbers may be four with decimal commas, of a box that has a size."""
    fractions = (f"{row.box[1]:.0f}", f"{row.box[3]:.0f}", *row.tail[1:4:2])
    large = len(row.tail) >= 4 and all(each.isdecimal() and float(each) >= _SMALL for each in row.tail[:3:2])
    return large and all(map(str.isdecimal, fractions))


def _joined(row: Row) -> tuple[str, str, str, str]:
    a, b, c, d = (f"{number:.0f}" for number in row.box)
    return f"{a}.{b}", f"{c}.{d}", f"{row.tail[0]}.{row.tail[1]}", f"{row.tail[2]}.{row.tail[3]}"

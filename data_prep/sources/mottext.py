"""MOTChallenge text and what trackers write in its place: one box per line, `frame,id,left,top,width,height`, ...

Layouts: https://motchallenge.net/instructions. Fields may be separated by commas, semicolons, bars, tabs or spaces; a
header may name the columns in any order; what stands behind the box is kept as text. Ground truth (a file named gt.txt)
flags lines to be ignored with confidence 0; with eight or nine columns (MOT16 and later) the eighth is the class, 1 =
pedestrian.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.sources import _commas, _rows
from data_prep.sources._rows import Rectangle, Row, Table
from data_prep.types import Reject, SourceError

GROUND_TRUTH = "gt.txt"
PEDESTRIAN = "1"
GROUND_TRUTH_TAIL = (2, 3)  # columns behind the box where the second of them is a class
_COMMENTS, _MARKS = ("#", "//", "%"), "#/% "
_CLEAN = str.maketrans("", "", "\"'[](){}\0")
_LONGEST = 100_000  # signs of a line
_BOX = 4  # numbers of a box, in front of them frame and id

# Names of columns, in lower case without anything but letters and digits.
_NAMES = {
    "frame": "frame frameid frameno frameno framenumber frameindex frameidx framenum fn imageid",
    "track": "id trackid track tracker trackerid objectid objid targetid target identity personid pid tid uid uniqueid",
    "left": "left bbleft xmin xtl bboxleft boxleft x1 bbx1 bboxx1 xlefttop",
    "top": "top bbtop ymin ytl bboxtop boxtop y1 bby1 bboxy1 ylefttop",
    "right": "right bbright xmax xbr bboxright x2 bbx2 bboxx2",
    "bottom": "bottom bbbottom ymax ybr bboxbottom y2 bby2 bboxy2",
    "width": "width bbwidth w bboxwidth bboxw bbw boxwidth",
    "height": "height bbheight h bboxheight bboxh bbh boxheight",
    "cx": "cx xc xcenter xcentre centerx bboxcx bbcx",
    "cy": "cy yc ycenter ycentre centery bboxcy bbcy",
    "x": "x bboxx bbx boxx",
    "y": "y bboxy bby boxy",
    "label": "class cls category label classid classname categoryid categoryname objectclass type clsid objecttype",
}
_COLUMN = {name: column for column, names in _NAMES.items() for name in names.split()}
_BOXES = (
    (("left", "top", "right", "bottom"), "xyxy"),
    (("left", "top", "width", "height"), "xywh"),
    (("cx", "cy", "width", "height"), "cxcywh"),
    (("x", "y", "right", "bottom"), "xyxy"),
    (("x", "y", "width", "height"), None),  # corner or center: the evidence decides
)


class Box(NamedTuple):
    """One line: frame, track or person id (negative: none), box."""

    frame: int
    track: int
    box: Rectangle


class _Columns(NamedTuple):
    """Where the numbers of a row stand, and what a header says about them; it has no more columns than `most`."""

    frame: int = 0
    track: int = 1
    box: tuple[int, ...] = (2, 3, 4, 5)
    label: int | None = None
    form: str | None = None
    most: int | None = None

    @property
    def least(self) -> int:
        return 1 + max(self.frame, self.track, *self.box)


def table(path: Path) -> Table:
    """All rows of a text as they are written.

    Raises:
      SourceError: the file cannot be read, or its header names columns that are not understood.
    """
    rows, rejects, columns = [], [], _Columns()
    started = commas = False
    for number, line in enumerate(_rows.text_of(path).splitlines(), 1):
        if len(line) > _LONGEST:
            detail = f"got {line[:80]!r} and so on, {len(line):,} signs, expected at most {_LONGEST:,}"
            rejects.append(Reject("malformed line", f"{path}:{number}", detail))
            continue
        fields = [] if line.lstrip().startswith(_COMMENTS) and not _is_header(line) else split(line)
        if not any(fields):
            continue
        if not started and _is_header(line):
            columns = _header(split(line.lstrip(_MARKS)), f"{path}:{number}")
            started = True
            continue
        started, commas = True, commas or _has_commas(line)
        row = _row(fields, columns, str(number))
        if isinstance(row, str):
            rejects.append(Reject("malformed line", f"{path}:{number}", f"got {line[:80]!r}, {row}"))
        else:
            rows.append(row)
    doubt = _commas.doubt(rows) if commas else ""
    return Table(path, "MOT text", rows, rejects, box=columns.form, flagged=is_ground_truth(path), doubt=doubt)


def read(path: Path) -> tuple[list[Box], list[Reject]]:
    """All usable boxes of a text in MOTChallenge's own meaning (sizes, classes, flags), in its order.

    All others become Rejects with file and line number, those too that ground truth itself marks as to be ignored.
    """
    found = table(path)
    boxes, rejects = [], list(found.rejects)
    for row in found.rows:
        where = f"{path}:{row.line}"
        reject = _ignored(row, path) or without_size(row.box, where)
        if reject is None:
            boxes.append(Box(row.frame, row.track, row.box))
        else:
            rejects.append(reject)
    return boxes, sorted(rejects, key=lambda reject: int(reject.where.rpartition(":")[2]))


def write(path: Path, boxes: list[Box]) -> None:
    """Writes boxes as a tracker's text of ten columns; coordinates are rounded to hundredths of a pixel."""
    lines = [f"{b.frame},{b.track},{','.join(f'{v:.2f}' for v in b.box)},1,-1,-1,-1\n" for b in boxes]
    path.write_text("".join(lines), "utf-8")


def is_ground_truth(path: Path) -> bool:
    """Whether a text's name says that its seventh column is a flag."""
    return path.name == GROUND_TRUTH


def without_size(box: Rectangle, where: str) -> Reject | None:
    """A Reject for a box (left, top, width, height) of no size."""
    if box[2] > 0 and box[3] > 0:
        return None
    detail = f"got width {box[2]:g}, height {box[3]:g}, expected both above 0"
    return Reject("box of zero size", where, detail)


@functools.lru_cache(maxsize=4096)
def as_class(token: str) -> str:
    """A class as people give it: "1.0" and "1" are one."""
    number = _number(token)
    return str(int(number)) if number is not None and number.is_integer() else token.strip().lower()


def split(line: str) -> list[str]:
    """Fields of a line, separated by semicolons, bars, commas, tabs or spaces."""
    line = _commas.unquoted(line).translate(_CLEAN).strip()
    for separator in ";|":
        if separator in line:
            return [field.strip().replace(",", ".") for field in line.split(separator)]
    if "," in line:
        fields = [field.strip() for field in line.split(",")]
        if not re.search(r"\s", fields[0]):
            return fields
        line = line.replace(",", ".")  # of decimals, between spaces or tabs
    return line.split("\t") if "\t\t" in line else line.split()


def _has_commas(line: str) -> bool:
    """Whether commas, and nothing else, separate the fields of a line."""
    head, comma, _ = line.strip().partition(",")
    return bool(comma) and not re.search(r"\s", head) and not any(separator in line for separator in ";|")


def flagged(row: Row, where: str) -> Reject | None:
    """A Reject for a row of ground truth that says of itself that it does not count."""
    if not row.tail or _number(row.tail[0]) != 0:
        return None
    detail = f"frame {row.frame}, id {row.track}: its seventh column is 0, which says that it does not count"
    return Reject("ignored by the ground truth", where, detail)


def number_of(tail: Sequence[str]) -> float:
    """What stands right behind the box, as a number; 0 where it is none."""
    return (_number(tail[0]) if tail else None) or 0


def _ignored(row: Row, path: Path) -> Reject | None:
    where = f"{path}:{row.line}"
    if not is_ground_truth(path):
        return None
    if len(row.tail) in GROUND_TRUTH_TAIL and as_class(row.tail[1]) != PEDESTRIAN:
        return Reject("ignored by the ground truth", where, f"its class is {row.tail[1]}, no pedestrian")
    return flagged(row, where)


def _row(fields: Sequence[str], columns: _Columns, line: str) -> Row | str:
    """A row, or what is wrong with it."""
    expected = "expected frame,id,left,top,width,height,... in numbers, separated by commas, tabs or spaces"
    if len(fields) < columns.least:
        return f"{expected}: {len(fields)} columns"
    if columns.most is not None and any(fields[columns.most :]):
        return f"the header names {columns.most} columns, got {len(fields)}"
    try:
        frame, track = _rows.frame_number(fields[columns.frame]), _rows.track_id(fields[columns.track])
        box = _rows.rectangle([fields[i] for i in columns.box])
    except ValueError as error:
        return f"{expected}: {error}"
    if columns.label is not None:
        label = fields[columns.label] if columns.label < len(fields) else ""
        return Row(frame, track, box, (), label, line)
    return Row(frame, track, box, tuple(fields[columns.least :]), "", line)


def _is_header(line: str) -> bool:
    """Whether a line names columns: words among which two at least are known."""
    return sum(_plain(field) in _COLUMN for field in split(line.lstrip(_MARKS))) >= 2


def _header(fields: Sequence[str], where: str) -> _Columns:
    at: dict[str, int] = {}
    for i, name in enumerate(fields):
        at.setdefault(_COLUMN.get(_plain(name), ""), i)
    found = next(((names, form) for names, form in _BOXES if at.keys() >= set(names)), None)
    if found is None or not at.keys() >= {"frame", "track"}:
        raise SourceError(
            f"{where}: got a header {', '.join(fields)[:120]}, expected names like frame, id, left, top, width, height "
            "(or x1, y1, x2, y2); rename its columns, or remove it where the columns come in this order"
        )
    names, form = found
    return _Columns(at["frame"], at["track"], tuple(at[name] for name in names), at.get("label"), form, len(fields))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _number(token: str) -> float | None:
    try:
        return float(token)
    except ValueError:
        return None

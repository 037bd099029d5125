"""How one text is read: where its frames start, what its boxes are, which classes are people. Evidence, or refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from data_prep.config import MotConfig
from data_prep.sources import _classes, _geometry, _numbering, mottext
from data_prep.sources._classes import Classes
from data_prep.sources._numbering import Frames, Numbering
from data_prep.sources._rows import Rectangle, Row, Table
from data_prep.types import Reject

_JUMPS = 0.3  # heights of a box from frame to frame: people do not go that fast
_FEW = 5  # boxes whose id has another box in the same frame, that may be slips; rows that tell nothing
_ALONE = 20  # boxes, of which no two have one id, from which on ids are no tracks
_TWICE = 0.2  # share of boxes whose id has another box in the same frame, from which on ids are no tracks
_LARGE = 2**62


@dataclass(frozen=True)
class Evidence:
    """What one text and its pictures say about themselves.

    Attributes:
      counts: rows per frame number.
      form: of the boxes.
      numbering: of the frames, by the sequence alone.
      jump: how far boxes go from frame to frame, in heights of a box; None where nothing follows.
      swapped_jump: the same, were the first two columns the other way round.
    """

    counts: Counter[int]
    form: _geometry.Form
    numbering: _numbering.Found
    jump: float | None = None
    swapped_jump: float | None = None

    @property
    def swapped(self) -> bool:
        """Whether frame and id look as if they were the other way round."""
        jump, other = self.jump, self.swapped_jump
        if jump is None:  # no track has a second box
            return other is not None and other < _JUMPS / 4
        return other is not None and jump > _JUMPS and other < jump / 4


class Others(NamedTuple):
    """What the other sequences of one input say beyond doubt."""

    firsts: frozenset[int] = frozenset()
    forms: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Reading:
    """How a text is read.

    Attributes:
      form: of the boxes, one of `_geometry.FORMS`.
      numbering: of the frames.
      classes: which rows are people.
      why: what was decided by which evidence, a line each.
      problems: what could not be decided, both readings named; a text that has any must not be read.
      numbering_problem: whether that is where the frames start.
      assumed: what was taken though something else would fit as well, with how to say otherwise; empty for nothing.
    """

    form: str
    numbering: Numbering
    classes: Classes
    why: tuple[str, ...]
    problems: tuple[str, ...]
    numbering_problem: bool = False
    assumed: str = ""


class Located(NamedTuple):
    """A row whose meaning is known: number of its picture, and left, top, width, height in pixels."""

    row: Row
    picture: int
    box: Rectangle


def examine(table: Table, frames: Frames) -> Evidence:
    """What the rows of people that may count say; rows of no track count too."""
    counts = _numbering.count([row.frame for row in table.rows])
    boxes = np.array([row.box for row in table.rows], np.float64).reshape(-1, 4)
    ids = {track: i for i, track in enumerate({row.track for row in table.rows})}
    tracks = np.array([ids[row.track] for row in table.rows], np.int64)
    numbers = np.array([row.frame for row in table.rows], np.int64)
    jump = _geometry.jump(boxes, tracks, numbers)
    small = np.array([min(row.track, _LARGE) for row in table.rows], np.int64)
    other = _geometry.jump(boxes, numbers, small) if len(ids) > 1 else None
    return Evidence(counts, _geometry.find(boxes, tracks, frames.size), _numbering.find(counts, frames), jump, other)


def agree(evidence: Iterable[Evidence]) -> Others:
    """What sequences that were read alike say together."""
    some = list(evidence)
    firsts = _numbering.together([each.numbering for each in some])
    return Others(firsts, frozenset(each.form.name for each in some if each.form.name and each.form.sure))


def decide(
    table: Table, frames: Frames, evidence: Evidence, settings: MotConfig, others: Others, names: Sequence[str]
) -> Reading:
    """Decides how a text is read.

    Args:
      table, frames, evidence: of the sequence.
      settings: what the user says goes before all evidence.
      others: what other texts of the same kind say; it decides where the sequence itself allows two readings.
      names: of classes, from a list beside the text.
    """
    classes = _classes.find(table, settings, names)
    form, form_why, form_problem = _form(table, evidence.form, settings, others)
    numbering, number_why, number_problem, assumed = _number(table, frames, evidence, settings, others)
    why = (number_why, form_why, classes.why)
    ids = "" if classes.problem else _ids(table, classes)
    columns = (_order(table, evidence, settings), _before_the_box(table, settings))
    commas = table.doubt if settings.box is None else ""
    problems = (commas, number_problem, form_problem, classes.problem, *columns, ids)
    said = tuple(filter(None, problems))
    return Reading(form, numbering, classes, tuple(filter(None, why)), said, bool(number_problem), assumed)


def _ids(table: Table, classes: Classes) -> str:
    """What to say where ids are no tracks: many people of one id in one frame, or as many ids as boxes."""
    rows = [row for row in table.rows if row.track >= 0 and classes.admits(row)]
    if len(rows) >= _ALONE and len({row.track for row in rows}) == len(rows):
        return (
            f"ids are no tracks: none of {len(rows)} ids has a second box, so they count boxes; write the tracker's "
            "ids there (for crops that nobody tracked there is --source=annotations)"
        )
    boxes = Counter((frame, track) for frame, track, _ in {row[:3] for row in rows})
    twice = boxes.total() - len(boxes)
    if twice < _FEW or twice <= _TWICE * len(rows):
        return ""
    (frame, track), count = boxes.most_common(1)[0]
    return (
        f"ids are no tracks: in frame {frame} {count} boxes have id {track}, {twice} of {len(rows)} rows are such; "
        "expected another id for every person of a frame; write the tracker's ids there (a class, a confidence or rows "
        "of several cameras may be in their place)"
    )


def _before_the_box(table: Table, settings: MotConfig) -> str:
    """What to say where something else seems to stand where boxes begin."""
    rows = table.rows
    if settings.box is not None or table.box is not None or len(rows) < _FEW:
        return ""
    # Where a column is put in, a height stands where trackers write a confidence.
    if not all(0 <= row.box[0] <= 1 < max(row.box) and mottext.number_of(row.tail) > 1 for row in rows):
        return ""
    return (
        f"the third column lies between 0 and 1, and the seventh above 1, in all {len(rows)} rows: a confidence or a "
        "class stands before the box (put it behind, or name the columns in a first line: frame,id,conf,left,top,"
        "width,height), or all boxes begin at the left edge (--config.mot.box=xywh)"
    )


def _order(table: Table, evidence: Evidence, settings: MotConfig) -> str:
    """What to say where the first two columns look as if they were the other way round."""
    if settings.order is not None or table.first_frame is not None or not evidence.swapped:
        return ""
    return (
        "the first two columns are frame and id (--config.mot.order=frame,id) or id and frame "
        f"(--config.mot.order=id,frame): in the first reading {_goes(evidence.jump)}, in the second "
        f"{_goes(evidence.swapped_jump)}; say which"
    )


def _goes(jump: float | None) -> str:
    if jump is None:
        return "no track has a second box"
    return f"a box goes {jump:.1f} of its height from frame to frame"


def swap(table: Table) -> Table:
    """The table with frame and id the other way round; rows whose id is no frame number become Rejects."""
    rows = [row._replace(frame=row.track, track=row.frame) for row in table.rows if 0 <= row.track < _LARGE]
    detail = "got no id where config.mot.order=id,frame expects a frame number"
    rejects = [Reject("malformed line", table.where(row), detail) for row in table.rows if not 0 <= row.track < _LARGE]
    return replace(table, rows=rows, rejects=[*table.rejects, *rejects])


def _form(table: Table, found: _geometry.Form, settings: MotConfig, others: Others) -> tuple[str, str, str]:
    """Form of the boxes, why, and what cannot be decided."""
    if settings.box is not None:
        return settings.box, f"config.mot.box={settings.box}", ""
    if table.box is not None:
        return table.box, f"{table.format}: {_geometry.FORMS[table.box]}", ""
    said = next(iter(others.forms)) if len(others.forms) == 1 else None
    if found.name is not None:
        if not found.sure and said and said != found.name:
            return said, f"{_geometry.FORMS[said]}, as in the other texts", ""
        return found.name, f"{_geometry.FORMS[found.name]}: {found.why}", ""
    if said in found.readings:
        return str(said), f"{_geometry.FORMS[str(said)]}, as in the other texts ({found.why})", ""
    if not found.readings:
        return _geometry.DEFAULT, "", f"{found.why}; --config.mot.box=xywh takes them as they are"
    either = " or ".join(f"{_geometry.FORMS[each]} (--config.mot.box={each})" for each in found.readings)
    return _geometry.DEFAULT, "", f"boxes beyond doubt are neither: {either}; {found.why}; say which"


def _number(
    table: Table, frames: Frames, evidence: Evidence, settings: MotConfig, others: Others
) -> tuple[Numbering, str, str, str]:
    """Numbering of the frames, why, what cannot be decided, and what was taken though another one fits."""
    if settings.first_frame is not None:
        return _numbering.given(settings.first_frame, frames), f"config.mot.first_frame={settings.first_frame}", "", ""
    if table.first_frame is not None:
        numbering = _numbering.given(table.first_frame, frames)
        return numbering, f"{table.format}: frames from {table.first_frame}", "", ""
    found = _numbering.find(evidence.counts, frames, others.firsts)
    either = [_numbering.told(each, frames) for each in sorted(found.readings)]
    if found.numbering is not None:
        taken = _numbering.told(found.numbering, frames)
        assumed = f"frames are taken to be counted {taken}, as the text begins at the first picture by that alone"
        assumed += f"; as fits, too: {', '.join(each for each in either if each != taken)}"
        why = f"frames from {found.numbering.first}: {found.why}"
        return found.numbering, why, "", assumed if either else ""
    problem = (
        f"frames may be counted {' or '.join(either)}: {found.why}; say which number the first picture has in the text"
    )
    return Numbering(1), "", problem, ""


def locate(table: Table, frames: Frames, reading: Reading) -> tuple[list[Located], list[Reject]]:
    """Applies a reading: rows with pictures and pixels; the others as Rejects with file and line."""
    boxes = np.array([row.box for row in table.rows], np.float64).reshape(-1, 4)
    sizes = _geometry.to_sizes(boxes, reading.form, frames.size)
    located, rejects = [], []
    for row, (left, top, width, height) in zip(table.rows, sizes.tolist(), strict=True):
        box = (left, top, width, height)
        reject = _set_aside(table, row, box, reading)
        if reject is not None:
            rejects.append(reject)
        else:
            located.append(Located(row, reading.numbering.picture(row.frame, frames.numbers), box))
    return located, rejects


def _set_aside(table: Table, row: Row, box: Rectangle, reading: Reading) -> Reject | None:
    if table.flagged and (reject := mottext.flagged(row, table.where(row))):
        return reject
    if not reading.classes.admits(row):
        people = ", ".join(sorted(reading.classes.people or ()))
        reason = "ignored by the ground truth" if table.flagged else "not a person"
        detail = f"frame {row.frame}, id {row.track}: got class {reading.classes.of(row) or 'none'}, expected {people}"
        return Reject(reason, table.where(row), detail)
    return mottext.without_size(box, table.where(row))

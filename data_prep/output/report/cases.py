"""Which images the report shows: a few cases of everything that the levels did, the most doubtful or random ones.

Works on whole columns, so that it stays quick with millions of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.output.provenance import DISCARDED, MOVED

NEIGHBOURS = 3  # images of the same tracklet on either side of an excluded one
PER_STRIP = 5  # images that stand for a tracklet
STRIPS = 4  # tracklets or videos side by side


@dataclass(frozen=True)
class Strip:
    """Images side by side under one label.

    Attributes:
      label: where they come from.
      rows: of the provenance table.
      marked: the row that it is about, if any.
    """

    label: str
    rows: list[int]
    marked: int | None = None


@dataclass(frozen=True)
class Case:
    """One thing that happened: a caption and what it was made of, from left to right."""

    caption: str
    strips: list[Strip]


@dataclass(frozen=True)
class Cases:
    """What to show of one kind, and how often it happened.

    Attributes:
      total: number of all cases of this kind.
      shown: a few of them: the most doubtful first where confidence is estimated, else random ones in the order of the
        table.
    """

    total: int
    shown: list[Case]


class Columns:
    """The columns of a provenance table that cases are found by.

    Attributes:
      table: the provenance.
      video: [N] int64.
      tracklet: [N] int64, unique over all videos, as the tracker had it.
      tracklet_after: [N] int64, after level 2; -1: none.
      identity_after: [N] int64, after level 2; -1: none.
      identity: [N] int64, in the end; -1: none.
      selected: [N] bool.
      confidence: [N] float64 of the image's identity; nan where it is not estimated.
    """

    def __init__(self, table: pa.Table):
        self.table = table
        self.video, _ = _codes(table["video"])
        names = pa.chunked_array(
            [table[name].cast(pa.string()).combine_chunks() for name in ("tracklet", "level2_tracklet")]
        )
        number, kinds = _codes(names)
        before, after = np.split(number, 2)
        self.tracklet = self.video * kinds + before
        self.tracklet_after = np.where(after >= 0, self.video * kinds + after, -1)
        self.identity_after = _numbers(table["level2_identity"])
        self.identity = _numbers(table["identity"])
        self.selected = table["selected"].fill_null(False).to_numpy()
        self.confidence = table["confidence"].fill_null(np.nan).to_numpy()

    def text(self, row: int, name: str) -> str:
        """One cell, for people to read."""
        value = self.table[name][row].as_py()
        if value is None:
            return "none"
        return f"{value:.3f}" if isinstance(value, float) else str(value)


class Groups:
    """Rows by label, found by bisection."""

    def __init__(self, labels: np.ndarray):
        self._order = np.argsort(labels, kind="stable")
        self._sorted = labels[self._order]

    def rows(self, label: int) -> np.ndarray:
        """All rows with this label, in the order of the table."""
        return self._order[slice(*np.searchsorted(self._sorted, [label, label + 1]))]


def excluded(columns: Columns, rng: np.random.Generator, most: int) -> Cases:
    """Level 1: images that left their tracklet, between their neighbors in time."""
    rows = np.flatnonzero(_numbers(columns.table["level1_round"]) > 0)
    groups = Groups(columns.tracklet)

    def case(row: int) -> Case:
        tracklet = groups.rows(columns.tracklet[row])
        at = int(np.searchsorted(tracklet, row))
        around = tracklet[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS + 1]
        caption = f"distance {columns.text(row, 'level1_distance')}, round {columns.text(row, 'level1_round')}"
        return Case(caption, [Strip(_of_tracklet(columns, row), around.tolist(), row)])

    return Cases(len(rows), [case(row) for row in _draw(rows, rng, most)])


def moved(columns: Columns, rng: np.random.Generator, most: int) -> Cases:
    """Level 2 (a): excluded images that went to another tracklet."""
    rows = np.flatnonzero(_equal(columns.table["level2_action"], MOVED))
    before, after = Groups(columns.tracklet), Groups(columns.tracklet_after)

    def case(row: int) -> Case:
        source = _spread(_without(before.rows(columns.tracklet[row]), row))
        target = _spread(_without(after.rows(columns.tracklet_after[row]), row))
        caption = f"{columns.text(row, 'video')}, distance {columns.text(row, 'level2_distance')}"
        return Case(
            caption,
            [
                Strip(f"from tracklet {columns.text(row, 'tracklet')}", source),
                Strip("moved", [row], row),
                Strip(f"to tracklet {columns.text(row, 'level2_tracklet')}", target),
            ],
        )

    return Cases(len(rows), [case(row) for row in _draw(rows, rng, most)])


def discarded(columns: Columns, rng: np.random.Generator, most: int) -> Cases:
    """Level 2 (a): excluded images that no tracklet of the video would take."""
    rows = np.flatnonzero(_equal(columns.table["level2_action"], DISCARDED))
    shown = [
        Case(f"nearest {columns.text(row, 'level2_distance')}", [Strip(_of_tracklet(columns, row), [row])])
        for row in _draw(rows, rng, most)
    ]
    return Cases(len(rows), shown)


def merged(columns: Columns, rng: np.random.Generator, most: int) -> Cases:
    """Level 2 (b): tracklets of one video that became one identity."""
    return _joined(columns, columns.identity_after, columns.tracklet_after, "level2_tracklet", rng, most)


def linked(columns: Columns, rng: np.random.Generator, most: int) -> Cases:
    """Level 3: identities that were found in more than one video."""
    return _joined(columns, columns.identity, columns.video, "video", rng, most)


def final(columns: Columns, rng: np.random.Generator, most: int) -> Cases:
    """Identities as they were written, several videos first."""
    identity = np.where(columns.selected, columns.identity, -1)
    groups, names = Groups(identity), np.unique(identity[identity >= 0])
    shown = []
    for name in _doubtful(columns, identity, names, rng, most):
        rows = groups.rows(name)
        videos = len(np.unique(columns.video[rows]))
        label = f"{_count(len(rows), 'image')} from {_count(videos, 'video')}"
        caption = f"identity {name}{_confidence(columns, rows)}"
        shown.append(Case(caption, [Strip(label, _spread(rows, 2 * PER_STRIP))]))
    return Cases(len(names), shown)


def _joined(
    columns: Columns, whole: np.ndarray, part: np.ndarray, column: str, rng: np.random.Generator, most: int
) -> Cases:
    """Labels `whole` that hold several different `part`s, one strip for each part."""
    inside = whole >= 0
    pairs = np.unique(np.stack([whole[inside], part[inside]]), axis=1)
    names, parts = np.unique(pairs[0], return_counts=True)
    joined = names[parts > 1]
    groups = Groups(whole)

    def case(name: int) -> Case:
        rows = groups.rows(name)
        found = np.unique(part[rows])
        strips = [rows[part[rows] == each] for each in found[:STRIPS]]
        caption = f"{_count(len(found), column.removeprefix('level2_'))}, {_count(len(rows), 'image')}"
        if column != "video":
            caption += f", {columns.text(rows[0], 'video')}"
        caption += _confidence(columns, rows)
        return Case(caption, [Strip(columns.text(own[0], column), _spread(own)) for own in strips])

    return Cases(len(joined), [case(name) for name in _doubtful(columns, whole, joined, rng, most)])


def _doubtful(
    columns: Columns, whole: np.ndarray, names: np.ndarray, rng: np.random.Generator, most: int
) -> Iterator[int]:
    """At most `most` labels of `whole`, the least confident first; random ones where no confidence is estimated."""
    known = (whole >= 0) & np.isfinite(columns.confidence)
    if not known.any():
        return _draw(names, rng, most)
    least = np.full(int(whole.max(initial=-1)) + 1, np.inf)
    np.minimum.at(least, whole[known], columns.confidence[known])
    return (int(name) for name in names[np.argsort(least[names], kind="stable")[:most]])


def _confidence(columns: Columns, rows: np.ndarray) -> str:
    """What a caption says of it."""
    found = columns.confidence[rows]
    return f", confidence {np.nanmin(found):.2f}" if np.isfinite(found).any() else ""


def _of_tracklet(columns: Columns, row: int) -> str:
    return " / ".join(columns.text(row, name) for name in ("video", "tracklet"))


def _draw(values: np.ndarray, rng: np.random.Generator, most: int) -> Iterator[int]:
    """At most `most` of the values, in their order."""
    chosen = rng.choice(len(values), min(most, len(values)), replace=False)
    return (int(value) for value in values[np.sort(chosen)])


def _spread(rows: np.ndarray, most: int = PER_STRIP) -> list[int]:
    """At most `most` rows, evenly spread over all, both ends included."""
    at = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    return rows[at].tolist()


def _without(rows: np.ndarray, row: int) -> np.ndarray:
    return rows[rows != row]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.fill_null(-1).to_numpy()


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Numbers equal texts alike (-1: null); returns how many there are, too."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def _equal(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return pc.equal(column.cast(pa.string()), value).fill_null(False).to_numpy()

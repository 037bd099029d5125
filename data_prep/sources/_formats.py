"""Track texts of other makers as rows: KITTI tracking, DeepStream, YOLO labels with ids, CVAT, VisDrone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from data_prep.sources import _rows, mottext
from data_prep.sources._rows import UNTRACKED, Row, Table
from data_prep.sources.pictures import last_number, listing
from data_prep.types import Reject, SourceError

DEEPSTREAM = re.compile(r"(?P<app>\d{2})_(?P<stream>\d{3})_(?P<frame>\d{6,})\.txt")
_KITTI_TYPE, _KITTI_BOX = 2, slice(6, 10)
_DEEPSTREAM_BOX = slice(5, 9)
_VISDRONE_COLUMNS, VISDRONE_PEOPLE = 10, frozenset({"1", "2"})  # pedestrian, people; 4 is a car
_WORD = re.compile(r"[A-Za-z]{3,}[A-Za-z_]*")


def load(path: Path, prefix: str = "") -> Table:
    """Rows of a track text, or of a folder of texts per frame, by what it looks like.

    Args:
      path: the text or the folder.
      prefix: beginning of the names of the texts per frame.

    Raises:
      SourceError: it cannot be read, or it is no track text at all.
    """
    if path.is_dir():
        files = [file for file in per_frame(path) if not prefix or is_per_frame(file.name, prefix)]
        if not files:
            raise SourceError(f"{path} holds no text per frame; expected names with a frame number, like {prefix}1.txt")
        return _deepstream(path, files) if DEEPSTREAM.fullmatch(files[0].name) else _yolo(path, files)
    if path.suffix.lower() == ".xml":
        return _cvat(path)
    first = _first_line(path)
    if _is_kitti(first):
        return _kitti(path)
    if path.parent.name == "annotations" and len(mottext.split(first)) == _VISDRONE_COLUMNS:
        return _visdrone(path)
    return mottext.table(path)


def per_frame(folder: Path) -> list[Path]:
    """Texts of a folder that has one per frame, in natural order."""
    return [path for path in listing(folder) if path.suffix == ".txt" and last_number(path.name) is not None]


def is_per_frame(name: str, prefix: str) -> bool:
    """Whether a text's name is a prefix and the number of a frame."""
    return name.startswith(prefix) and name.removeprefix(prefix).removesuffix(".txt").isdecimal()


def _first_line(path: Path) -> str:
    lines = (line.strip() for line in _rows.text_of(path).splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _is_kitti(line: str) -> bool:
    fields = line.split()
    return len(fields) >= 10 and bool(_WORD.fullmatch(fields[_KITTI_TYPE])) and fields[0].isdecimal()


def _kitti(path: Path) -> Table:
    """`frame id type truncated occluded alpha left top right bottom ...`, frames from 0."""

    def row(fields: list[str], line: str) -> Row:
        box = _rows.rectangle(fields[_KITTI_BOX])
        return Row(_rows.frame_number(fields[0]), _rows.track_id(fields[1]), box, (), fields[_KITTI_TYPE], line)

    expected = "frame id type truncated occluded alpha left top right bottom ..."
    rows, rejects = _parse(_lines(path), row, expected, 10, f"{path}:")
    return Table(path, "KITTI tracking", rows, rejects, box="xyxy", first_frame=0)


def _visdrone(path: Path) -> Table:
    """`frame,id,left,top,width,height,score,category,truncation,occlusion`; score 0 does not count."""
    found = mottext.table(path)
    rows = [row._replace(label=mottext.as_class(row.tail[1]) if len(row.tail) > 1 else "") for row in found.rows]
    return Table(path, "VisDrone", rows, found.rejects, "xywh", 1, flagged=True, people=VISDRONE_PEOPLE)


def _deepstream(folder: Path, files: list[Path]) -> Table:
    """`type id truncated occluded alpha left top right bottom ...` in a file per frame, named by stream and frame."""
    named = [(match, path) for path in files if (match := DEEPSTREAM.fullmatch(path.name))]
    streams = sorted({match["app"] + "_" + match["stream"] for match, _ in named})
    if len(streams) > 1:
        raise SourceError(
            f"{folder} holds the texts of streams {', '.join(streams)}; expected a folder for each of them"
        )

    def row(fields: list[str], line: str) -> Row:
        if not fields[1].isdecimal():  # the detector's own files have the same names and no id
            raise ValueError("there is no id; write the tracker's files, kitti-track-output-dir")
        number = int(line.partition(":")[0].removesuffix(".txt").rpartition("_")[2])
        return Row(number, _rows.track_id(fields[1]), _rows.rectangle(fields[_DEEPSTREAM_BOX]), (), fields[0], line)

    lines = (item for _, path in named for item in _lines(path, f"{path.name}:"))
    rows, rejects = _parse(lines, row, "type id truncated occluded alpha left top right bottom ...", 10, f"{folder}/")
    return Table(folder, "DeepStream", rows, rejects, box="xyxy", first_frame=0)


def _yolo(folder: Path, files: list[Path]) -> Table:
    """`class cx cy width height [confidence] id`, shares of the frame, in a file per frame."""

    def row(fields: list[str], line: str) -> Row:
        if len(fields) > 7:
            raise ValueError("these are outlines, not boxes")
        frame = last_number(line.partition(":")[0])
        if frame is None:
            raise ValueError("the file's name has no number")
        track = UNTRACKED if len(fields) == 5 else _rows.track_id(fields[-1])
        return Row(frame, track, _rows.rectangle(fields[1:5]), (), mottext.as_class(fields[0]), line)

    lines = (item for path in files for item in _lines(path, f"{path.name}:"))
    rows, rejects = _parse(lines, row, "class cx cy width height [confidence] id", 5, f"{folder}/")
    return Table(folder, "YOLO labels with ids", rows, rejects, box="cxcywhn", names=class_names(folder))


def class_names(folder: Path) -> tuple[str, ...]:
    """Names of classes from 0, where a text beside the labels lists them."""
    for place in (folder, folder.parent):
        for name in ("classes.txt", "obj.names", "labels.txt"):
            if (place / name).is_file():
                return tuple(line.strip() for line in _rows.text_of(place / name).splitlines() if line.strip())
    return ()


def _cvat(path: Path) -> Table:
    """CVAT for video 1.1: `<track id label><box frame outside xtl ytl xbr ybr/>`, frames from 0."""
    text = _rows.text_of(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise SourceError(f"{path}: got a document type or entities, expected CVAT's plain XML")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"{path}: {error}; expected XML of CVAT for video 1.1") from error
    if root.find("track") is None and root.find("image") is not None:
        raise SourceError(f"{path}: CVAT for images has no tracks; export as CVAT for video 1.1")
    rows, rejects = [], []
    for track in root.iter("track"):
        for box in track.iter("box"):
            where = f"track {track.get('id')}, frame {box.get('frame')}"
            if box.get("outside") == "1":
                continue
            try:
                corners = _rows.rectangle([box.get(name, "") for name in ("xtl", "ytl", "xbr", "ybr")])
                frame, number = _rows.frame_number(box.get("frame", "")), _rows.track_id(track.get("id", ""))
            except ValueError as error:
                rejects.append(Reject("malformed line", f"{path}:{where}", f"{error}; expected xtl, ytl, xbr, ybr"))
                continue
            rows.append(Row(frame, number, corners, (), track.get("label", ""), where))
    return Table(path, "CVAT for video", rows, rejects, box="xyxy", first_frame=0)


def _lines(path: Path, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(where, line) of every line that is not blank."""
    for number, line in enumerate(_rows.text_of(path).splitlines(), 1):
        if line.strip():
            yield f"{prefix}{number}", line


def _parse(
    lines: Iterable[tuple[str, str]], row: Callable[[list[str], str], Row], expected: str, least: int, place: str
) -> tuple[list[Row], list[Reject]]:
    """Rows and rejects of lines of fields between spaces; `row` raises ValueError where fields are no row."""
    rows, rejects = [], []
    for where, line in lines:
        fields = line.split()
        try:
            if len(fields) < least:
                raise ValueError(f"{len(fields)} fields")
            rows.append(row(fields, where))
        except ValueError as error:
            rejects.append(
                Reject("malformed line", f"{place}{where}", f"got {line[:80]!r}, expected {expected}: {error}")
            )
    return rows, rejects

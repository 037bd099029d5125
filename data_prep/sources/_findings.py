"""What the doctor says of one sequence: counts, what will be done, what is odd, what cannot be decided."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from cion_jax.common.files import read_regular
from data_prep.config import MotConfig
from data_prep.sources import _avi, _geometry, _numbering
from data_prep.sources._opened import Opened
from data_prep.sources._picture_numbers import left_out
from data_prep.sources._reading import Reading
from data_prep.sources._sequences import Clip
from data_prep.sources.frames import Scan, fewer, rate, skips, some, turn
from data_prep.types import Finding

_ELSEWHERE = 0.2  # share of rows without a picture, from which on text and pictures do not belong together
_BEYOND = 0.2  # share of boxes that leave the frame, from which on it is said
_WIDE = 1.0  # width / height of the median box, from which on these are hardly people
_FAST = 0.5  # heights of a box from one frame to the next
_OTHER_RATE = 0.05  # share by which two frame rates differ
_ENDS = 1 << 16  # bytes at either end of a video that tell whether it is a copy


def of(opened: Opened, reading: Reading, settings: MotConfig) -> Finding:
    """The finding of one sequence and how it will be read."""
    table, frames, rows = opened.table, opened.frames, opened.table.rows
    if not rows:
        first = f"; the first: {table.rejects[0].detail}" if table.rejects else ""
        notes = (f"{table.path} has no usable row{first}",)
        return Finding(opened.clip.name, _cells(opened, reading), notes=notes, usable=False)
    if opened.clip.video is not None and not frames.numbers:
        notes = (f"{opened.clip.video}: no frame decodes; expected a video that OpenCV can read",)
        return Finding(opened.clip.name, _cells(opened, reading), notes=notes, usable=False)
    found, problems = [], list(reading.problems)
    gone = sum(1 for row in rows if opened.path(reading.numbering.picture(row.frame, frames.numbers)) is None)
    past = _past_the_end(opened, reading)
    if max(gone, past) > _ELSEWHERE * len(rows) and settings.first_frame is None:
        problems.append(
            f"{max(gone, past)} of {len(rows)} rows of {table.path} have no picture ({reading.why[0]}): the text of "
            "another video, another frame rate, or a part of it; where it is meant, say --config.mot.first_frame=1"
        )
    elif gone or past:
        found.append(f"{max(gone, past)} of {len(rows)} rows have no picture")
    if opened.clip.video is not None and settings.first_frame is None:
        problems += _lost_frames(opened.clip.video)
    found += filter(None, [reading.assumed])
    found += [*_of_boxes(opened, reading), *_of_text(opened), *_of_pictures(opened)]
    tracked = any(row.track >= 0 for row in rows)
    return Finding(opened.clip.name, _cells(opened, reading), reading.why, tuple(found), tuple(problems), tracked)


def _lost_frames(video: Path) -> list[str]:
    """What to say of a video whose frames cannot be numbered behind a damage."""
    at = _avi.broken(video)
    if at is None:
        return []
    return [
        f"{video} is damaged from byte {at:,} on: the decoder goes on behind it and does not count the frames that "
        "it lost, so that all further boxes would be cut from other frames; get the video again, or say "
        "--config.mot.first_frame=1 (or 0) to take frames as they decode"
    ]


def fingerprint(clip: Clip) -> str:
    """A digest that copies of one video share: of its ends, or of first and last picture; empty where unreadable."""
    digest = hashlib.sha256()
    try:
        if clip.video is not None and clip.video.is_file():
            size = clip.video.stat().st_size
            with clip.video.open("rb") as file:
                digest.update(f"{size}".encode() + file.read(_ENDS))
                file.seek(max(0, size - _ENDS))
                digest.update(file.read(_ENDS))
            return digest.hexdigest()
        names = sorted(os.listdir(clip.pictures)) if clip.pictures else []
        for name in names[:1] + names[-1:]:
            digest.update(read_regular(Path(str(clip.pictures), name)))
        return f"{digest.hexdigest()} {len(names)}" if names else ""
    except OSError:
        return ""


def of_scan(path: Path, found: Scan) -> list[str]:
    """What reading a video to its end found, in words."""
    notes = []
    if found.broken:
        notes.append(f"{path}: {len(found.broken)} frames do not decode ({some(found.broken)}); they are set aside")
    if not found.frames:
        notes.append(f"{path}: no frame decodes; expected a video that OpenCV can read")
    if said := fewer(path, found.frames + len(found.skipped), found.stated):
        notes.append(f"{path}: {said}")
    if found.skipped:
        notes.append(f"{path}: {skips(found.skipped)}")
    if found.complained:
        notes.append(
            f"{path}: the decoder complained at {len(found.complained)} frames ({some(found.complained)}): what it "
            "could not decode it has made up, and crops of these may be of nothing real"
        )
    return notes


def _past_the_end(opened: Opened, reading: Reading) -> int:
    """Rows behind a video's last frame."""
    numbers = opened.frames.numbers
    if opened.clip.video is None or not numbers:
        return 0
    return sum(1 for row in opened.table.rows if reading.numbering.picture(row.frame, numbers) > numbers[-1])


def _cells(opened: Opened, reading: Reading) -> dict[str, str]:
    rows, numbers, size = opened.table.rows, opened.frames.numbers, opened.frames.size
    frames = [row.frame for row in rows]
    boxes = _boxes(opened, reading)
    return {
        "format": opened.table.format,
        "frames in text": f"{min(frames)}-{max(frames)}" if frames else "none",
        "pictures": f"{numbers[0]}-{numbers[-1]}" if numbers else "?",
        "boxes": f"{len(rows):,}",
        "tracks": f"{len({row.track for row in rows if row.track >= 0}):,}",
        "no id": f"{sum(row.track < 0 for row in rows):,}",
        "bad rows": f"{len(opened.table.rejects):,}",
        "beyond frame": f"{_geometry.leaving(boxes, size):.0%}" if size else "?",
        "width/height": f"{_aspect(boxes):.2f}" if len(boxes) else "?",
    }


def _boxes(opened: Opened, reading: Reading) -> np.ndarray:
    boxes = np.array([row.box for row in opened.table.rows], np.float64).reshape(-1, 4)
    return _geometry.to_sizes(boxes, reading.form, opened.frames.size)


def _aspect(sizes: np.ndarray) -> float:
    return float(np.median(sizes[:, 2] / np.maximum(sizes[:, 3], 1e-9)))


def _of_boxes(opened: Opened, reading: Reading) -> list[str]:
    boxes, size, notes = _boxes(opened, reading), opened.frames.size, []
    if reading.form != _geometry.DEFAULT:
        notes.append(f"boxes are read as {_geometry.FORMS[reading.form]}: {reading.form}")
    if size is not None and (beyond := _geometry.leaving(boxes, size)) > _BEYOND:
        raw = np.array([row.box for row in opened.table.rows], np.float64)
        others = {form: _geometry.leaving(_geometry.to_sizes(raw, form, size), size) for form in _geometry.FORMS}
        best = min(others, key=lambda form: others[form])
        hint = f"; read with --config.mot.box={best} {others[best]:.0%} would" if others[best] < beyond / 2 else ""
        notes.append(f"{beyond:.0%} of the boxes reach beyond the frame of {size[1]} x {size[0]}{hint}")
    if _aspect(boxes) > _WIDE:
        notes.append(f"boxes are {_aspect(boxes):.2f} times as wide as high; people who stand are about 0.4")
    jump = opened.evidence.jump
    if jump is not None and jump > _FAST:
        notes.append(f"boxes of a track go {jump:.1f} of their height from frame to frame: are they of this video?")
    numbering, start = (
        reading.numbering,
        opened.frames.numbers[0] if opened.frames.named and opened.frames.numbers else 1,
    )
    if numbering != _numbering.Numbering(start):
        notes.append(f"the text counts its frames from {numbering.first}")
    return notes


def _of_pictures(opened: Opened) -> list[str]:
    """What is odd about names of pictures."""
    clip, pictures = opened.clip, opened.pictures
    notes: list[str] = []
    if clip.pictures is None:
        return notes
    others = left_out(clip.pictures, clip.suffix, list(pictures.values()))
    if others:
        notes.append(
            f"{len(others)} of {clip.pictures} left out, of other names or formats than the rest: {others[0].name}"
        )
    if any(str(number) not in path.stem for number, path in pictures.items()):
        notes.append(
            "the names of the pictures do not number them; they are counted from 1 in the order of their names"
        )
    return notes


def _of_text(opened: Opened) -> list[str]:
    rows, notes, rejects = opened.table.rows, [], opened.table.rejects
    if rejects:
        notes.append(f"{len(rejects)} rows set aside, the first: {rejects[0].where}: {rejects[0].detail}")
    untracked = sum(row.track < 0 for row in rows)
    if untracked:
        why = "" if untracked < len(rows) else ": these are detections, run a tracker first"
        notes.append(f"{untracked} of {len(rows)} boxes have no id (-1) and are set aside{why}")
    length, numbers = opened.clip.length, opened.frames.numbers
    if length is not None and numbers and length != len(numbers):
        notes.append(f"seqinfo.ini says {length} frames, there are {len(numbers)}")
    stated, video = opened.clip.rate, opened.clip.video
    if video is not None and (degrees := turn(video)):
        notes.append(
            f"the video says that it is to be shown turned by {degrees:g} degrees; its frames are read so, as OpenCV "
            "and ffmpeg do: are the boxes of a tracker that reads so, too (PyAV and decord do not turn)?"
        )
    real = rate(video) if stated and video else None
    if stated and real and abs(stated - real) > _OTHER_RATE * real and length != len(numbers):
        notes.append(
            f"seqinfo.ini says {stated:g} frames per second, the video has {real:g}: is the text of this video?"
        )
    return notes

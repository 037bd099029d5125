"""MOTChallenge text: one box per line, `frame,id,left,top,width,height`, then confidence and more.

Layouts: https://motchallenge.net/instructions. Frames count from 1. Ground truth (a file named gt.txt) flags
lines to be ignored with confidence 0; with nine columns (MOT16 and later) the eighth is the class, 1 =
pedestrian. Everywhere else the columns after the box are a tracker's own business.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from data_prep.types import Reject

GROUND_TRUTH = "gt.txt"
PEDESTRIAN = 1
Rectangle = tuple[float, float, float, float]  # left, top, width, height in pixels


class Box(NamedTuple):
    """One line: frame from 1, track or person id (negative: none), box."""

    frame: int
    track: int
    box: Rectangle


def read(path: Path) -> tuple[list[Box], list[Reject]]:
    """All usable boxes of a text, in its order.

    All others become Rejects with file and line number, those too that ground truth itself marks as to be ignored.
    """
    boxes, rejects = [], []
    for i, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        result = _line(line, f"{path}:{i}", path.name == GROUND_TRUTH)
        if isinstance(result, Reject):
            rejects.append(result)
        else:
            boxes.append(result)
    return boxes, rejects


def write(path: Path, boxes: list[Box]) -> None:
    """Writes boxes as a tracker's text of ten columns; coordinates are rounded to hundredths of a pixel."""
    lines = [f"{b.frame},{b.track},{','.join(f'{v:.2f}' for v in b.box)},1,-1,-1,-1\n" for b in boxes]
    path.write_text("".join(lines), "utf-8")


def _line(line: str, where: str, ground_truth: bool) -> Box | Reject:
    try:
        numbers = [float(field) for field in line.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) < 6 or not all(map(math.isfinite, numbers)) or any(n % 1 for n in numbers[:2]) or numbers[0] < 1:
        detail = f"got {line[:80]!r}, expected frame,id,left,top,width,height,... in numbers, frames from 1"
        return Reject("malformed line", where, detail)
    if ground_truth and _ignored(numbers):
        return Reject("ignored by the ground truth", where, f"got {line[:80]!r}, which says that it does not count")
    left, top, width, height = numbers[2:6]
    if width <= 0 or height <= 0:
        detail = f"got width {width:g}, height {height:g}, expected both above 0"
        return Reject("box of zero size", where, detail)
    return Box(int(numbers[0]), int(numbers[1]), (left, top, width, height))


def _ignored(numbers: list[float]) -> bool:
    flagged = len(numbers) > 6 and numbers[6] == 0
    return flagged or (len(numbers) == 9 and numbers[7] != PEDESTRIAN)

"""What the four numbers of a box are: sizes, corners or centers, in pixels or in shares of the frame, by evidence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FORMS = {
    "xywh": "left, top, width, height",
    "xyxy": "left, top, right, bottom",
    "cxcywh": "center x, center y, width, height",
    "xywhn": "left, top, width, height in shares of the frame",
    "xyxyn": "left, top, right, bottom in shares of the frame",
    "cxcywhn": "center x, center y, width, height in shares of the frame",
}
DEFAULT = "xywh"  # MOTChallenge's own

_SHARES = 1.5  # numbers below are shares of the frame
_LEAVES = 0.1  # share of a box beyond the frame from which on it counts as leaving: trackers extrapolate a little
_FITS, _NEARLY = 0.98, 0.9  # share of boxes that could be corners, from which on they may be corners
_MANY = 0.2  # share of boxes that leave the frame in one reading and stay in another: it is the other
_MOST = 0.3  # the same for centers: trackers let people leave at the bottom, as centers read as corners do
_SOME = 0.05  # the same, below which nothing is wrong
_CORRELATED = 0.95
_STEPS = 5  # boxes that follow one another, below which their way says nothing


class Form(NamedTuple):
    """What was found.

    Attributes:
      name: one of `FORMS`; None where two readings fit and differ.
      sure: whether the evidence itself says so, rather than the format's definition.
      why: the evidence, in words.
      readings: those that fit, where `name` is None.
    """

    name: str | None
    sure: bool
    why: str
    readings: tuple[str, ...] = ()


def to_sizes(boxes: np.ndarray, form: str, size: tuple[int, int] | None) -> np.ndarray:
    """[n, 4] boxes of a form -> left, top, width, height in pixels; `size`: (height, width) of the frame."""
    a, b, c, d = np.asarray(boxes, np.float64).T
    kind = form.removesuffix("n")
    if kind == "xyxy":
        c, d = c - a, d - b
    elif kind == "cxcywh":
        a, b = a - c / 2, b - d / 2
    scale = np.ones(4) if size is None or not form.endswith("n") else np.array([size[1], size[0], size[1], size[0]])
    return np.stack([a, b, c, d], axis=1) * scale


def leaving(sizes: np.ndarray, size: tuple[int, int]) -> float:
    """Share of boxes (left, top, width, height) of which more than a tenth lies beyond a frame of (height, width)."""
    if not len(sizes):
        return 0.0
    left, top, width, height = sizes.T
    inside_x = np.minimum(left + width, size[1]) - np.maximum(left, 0)
    inside_y = np.minimum(top + height, size[0]) - np.maximum(top, 0)
    area = np.maximum(width * height, 1e-9)
    within = np.maximum(inside_x, 0) * np.maximum(inside_y, 0) / area
    return float(np.mean((within < 1 - _LEAVES) | (width <= 0) | (height <= 0)))


def find(boxes: np.ndarray, tracks: np.ndarray, size: tuple[int, int] | None) -> Form:
    """Which form [n, 4] boxes have, by which of them would leave the frame, and by what cannot be.

    Args:
      boxes: as written.
      tracks: [n] which track each is of.
      size: (height, width) of the frame; None where it is not known, then only what cannot be decides.
    """
    if not len(boxes):
        return Form(DEFAULT, False, "no box")
    shares = bool(np.abs(boxes).max() <= _SHARES) and (size is None or min(size) > 8)
    unit = "n" if shares else ""
    frame = (1, 1) if shares else size
    differ = (boxes[:, 0] > 0) | (boxes[:, 1] > 0)  # corners and sizes are the same for a box at the origin
    corners = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    possible = float(np.mean(corners[differ])) if differ.any() else 0.0
    out = {kind: leaving(to_sizes(boxes, kind, None), frame) if frame else 0.0 for kind in ("xywh", "xyxy", "cxcywh")}
    if min(out.values()) > 0.5:
        why = "most boxes reach beyond the frame in every reading: the frames have another size than the tracker saw"
        return Form(None, False, why, ())
    corners_fit = possible >= _NEARLY
    found = _corners(boxes, tracks, possible, out) if corners_fit else _centers(out, len(boxes), shares)
    name = found.name + unit if found.name else None
    return Form(name, found.sure, found.why, tuple(reading + unit for reading in found.readings))


def jump(boxes: np.ndarray, tracks: np.ndarray, frames: np.ndarray) -> float | None:
    """Median way of a box's first two numbers from one frame of its track to the next, in shares of its last number.

    None where fewer than five boxes follow one another. A person hardly moves within a frame; where frame and id are
    mixed up, one goes from person to person.
    """
    order = np.lexsort((frames, tracks))
    boxes, tracks, frames = boxes[order], tracks[order], frames[order]
    follows = (np.diff(tracks) == 0) & (np.diff(frames) == 1)
    if np.count_nonzero(follows) < _STEPS:
        return None
    ways = np.abs(np.diff(boxes[:, :2], axis=0)).max(axis=1)[follows]
    return float(np.median(ways) / max(np.median(np.abs(boxes[:, 3])), 1e-9))


def _corners(boxes: np.ndarray, tracks: np.ndarray, possible: float, out: dict[str, float]) -> Form:
    """Corners or sizes, where nearly all boxes could be corners."""
    both = ("xywh", "xyxy")
    says = f"read as sizes {out['xywh']:.0%} of the boxes leave the frame, read as corners {out['xyxy']:.0%}"
    if out["xyxy"] - out["xywh"] >= _SOME:
        return Form("xywh", True, says)
    clear = possible >= _FITS and out["xywh"] >= _MANY and out["xyxy"] <= out["xywh"] / 5
    if clear or (possible >= _FITS and _move_together(boxes, tracks)):
        return Form("xyxy", True, says if clear else "the third and fourth number move along with the first and second")
    return Form(None, False, f"{says}; in {possible:.0%} the third and fourth number exceed the first and second", both)


def _move_together(boxes: np.ndarray, tracks: np.ndarray) -> bool:
    """Whether right and bottom follow left and top, as sizes do not: in three tracks and thirty boxes at least."""
    if len(boxes) < 30 or len(np.unique(tracks)) < 3 or np.ptp(boxes[:, 0]) < 1 or np.ptp(boxes[:, 1]) < 1:
        return False
    a, b, c, d = boxes.T
    shape = np.median((c - a) / np.maximum(d - b, 1e-9))
    if not 0.15 < shape < 1 or not np.ptp(c) or not np.ptp(d):
        return False
    return bool(np.corrcoef(a, c)[0, 1] > _CORRELATED and np.corrcoef(b, d)[0, 1] > 0)


def _centers(out: dict[str, float], count: int, shares: bool) -> Form:
    """Sizes from corner or center, where corners cannot be."""
    says = f"with left and top {out['xywh']:.0%} of the boxes leave the frame, with centers {out['cxcywh']:.0%}"
    if out["xywh"] >= _MANY and out["cxcywh"] <= out["xywh"] / 5:
        if out["xywh"] >= _MOST and out["xywh"] * count >= 5:
            return Form("cxcywh", True, says)
        return Form(None, False, says, ("xywh", "cxcywh"))
    if shares and out["cxcywh"] <= out["xywh"]:
        return Form(None, False, f"shares of the frame, {says}", ("xywh", "cxcywh"))
    return Form("xywh", out["xywh"] < out["cxcywh"], says if out["xywh"] > _SOME else "boxes lie within the frame")

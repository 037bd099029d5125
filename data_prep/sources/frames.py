"""Frames of a sequence, from a folder of pictures or one video file, each decoded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from data_prep.sources.pictures import is_picture, last_number, listing, load
from data_prep.types import Reject

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
MIN_SIDE = 8  # pixels: what remains of a box in the frame must be a picture of something
MIN_VISIBLE = 0.25  # share of the box's area that must lie within the frame


def numbered(folder: Path) -> dict[int, Path]:
    """Frame number -> picture: the last number in its name, or the position from 1 where a name has none."""
    pictures = [path for path in listing(folder) if is_picture(path)]
    numbers = [last_number(path.name) for path in pictures]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(pictures) + 1))
    return {number: path for number, path in zip(numbers, pictures, strict=True) if number is not None}


def is_video(path: Path) -> bool:
    """Whether the name says that this file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def from_video(path: Path, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray | Reject]]:
    """The wanted frames (from 1) of a video in ascending order, read once from its start.

    Yields:
      frame and [h, w, 3] uint8 RGB, or a Reject from the first frame on that does not decode any more.
    """
    capture = cv2.VideoCapture(str(path))
    readable, position = capture.isOpened(), 0
    for frame in sorted(set(wanted)):
        while readable and position < frame:
            readable = capture.grab()
            position += readable
        if not readable:
            yield frame, _missing(path, frame, position)
            continue
        readable, picture = capture.retrieve()
        yield (
            frame,
            cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if readable else _missing(path, frame, frame - 1),
        )
    capture.release()


def from_pictures(paths: Mapping[int, Path]) -> Iterator[tuple[int, np.ndarray | Reject]]:
    """Frames that are a picture file each, in ascending order, as `from_video` yields them."""
    for frame in sorted(paths):
        yield frame, load(paths[frame], str(paths[frame]))


def cut(frame: np.ndarray, box: tuple[float, float, float, float], where: str) -> np.ndarray | Reject:
    """The part of a box (left, top, width, height) that lies in the frame, as a copy.

    Coordinates are pixels from 0, rounded. (MOTChallenge counts from 1, most trackers from 0; the pixel
    between them does not matter.)
    """
    height, width = frame.shape[:2]
    left, top, right, bottom = (round(v) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    got = f"got {', '.join(f'{v:g}' for v in box)} (left, top, width, height) in a frame of {width} x {height}"
    if x0 >= x1 or y0 >= y1:
        return Reject("box outside the frame", where, f"{got}, expected an overlap")
    if (x1 - x0) * (y1 - y0) < MIN_VISIBLE * box[2] * box[3]:
        return Reject("box mostly outside the frame", where, f"{got}, expected {MIN_VISIBLE:.0%} of it within")
    if min(x1 - x0, y1 - y0) < MIN_SIDE:
        return Reject("box too small", where, f"{got}, expected at least {MIN_SIDE} pixels each way within it")
    return frame[y0:y1, x0:x1].copy()


def _missing(path: Path, frame: int, decoded: int) -> Reject:
    if not decoded:
        return Reject("unreadable video", str(path), "no frame decodes; expected a video that OpenCV can read")
    return Reject("missing frame", str(path), f"frame {frame} wanted, the video ends or breaks after {decoded}")

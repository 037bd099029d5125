"""Frames of a sequence, from a folder of pictures or one video file, each decoded once."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from absl import logging

from cion_jax.common import images
from cion_jax.common.files import read_regular
from data_prep.sources._numbering import Frames
from data_prep.sources.pictures import load
from data_prep.types import Reject

# Containers that OpenCV's FFmpeg opens, in lower case; recorders and cameras write the odd ones.
VIDEO_SUFFIXES = frozenset(
    {".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".dav", ".divx", ".f4v", ".flv", ".h264", ".h265", ".hevc"}
    | {".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mod", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg"}
    | {".mts", ".mxf", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
_GIVEN_UP = 300  # frames in a row that do not decode, behind which a video is taken to be at its end
_HEADER = 1 << 20  # bytes of a picture in which its size stands
_MOST_FRAMES = 1e8  # that a container is believed to have
MIN_SIDE = 8  # pixels: what remains of a box in the frame must be a picture of something
MIN_VISIBLE = 0.25  # share of the box's area that must lie within the frame


def is_video(path: Path) -> bool:
    """Whether the name says that this file is a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def of_pictures(pictures: Mapping[int, Path]) -> Frames:
    """Numbers and size of pictures; the size is the first regular picture's."""
    size, turned = None, False
    for path in pictures.values():
        with contextlib.suppress(OSError, images.PictureError):
            head = read_regular(path)[:_HEADER]
            size, turned = images.size(head), images.orientation(head) != 1
        if size is not None:
            break
    return Frames(tuple(pictures), named=True, size=size, turned=turned)


def of_video(path: Path) -> Frames:
    """Numbers and size of a video's frames as its header states them."""
    if not path.is_file():
        return Frames((), named=False)
    capture = _capture(path)
    count, height, width = (
        capture.get(what) for what in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
    )
    capture.release()
    known = 0 < count < _MOST_FRAMES
    size = (int(height), int(width)) if height > 0 and width > 0 else None
    return Frames(range(1, int(count) + 1) if known else (), named=False, size=size)


def turn(path: Path) -> float:
    """By how many degrees a video says that it is to be shown turned; OpenCV gives its frames so."""
    capture = _capture(path)
    found = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    capture.release()
    return found


def _capture(path: Path) -> cv2.VideoCapture:
    """A video opened for reading; one that is not open where it is no regular file."""
    return cv2.VideoCapture(str(path)) if path.is_file() else cv2.VideoCapture()


def rate(path: Path) -> float | None:
    """Frames per second that a video's header states; None where it states none."""
    capture = _capture(path)
    found = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return found if 0 < found < _MOST_FRAMES else None


class Scan(NamedTuple):
    """What reading a video to its end found, by frame numbers from 1.

    Attributes:
      frames: how many there are.
      broken: those that do not decode.
      skipped: those in front of which the container holds an empty one, which OpenCV does not count.
      complained: those at which the decoder complained; what it could not decode it has made up.
      stated: how many the header states.
    """

    frames: int
    broken: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    complained: tuple[int, ...] = ()
    stated: float = 0


def scan(path: Path, listen: bool = False) -> Scan:
    """Reads a video to its end; frames that do not decode count, except at the end.

    With `listen`, what the decoder writes to stderr is caught meanwhile; nothing else may write to it then.
    """
    broken, skipped, complained, position, last, clock = [], [], [], 0, 0, None
    with _caught_stderr() if listen else contextlib.nullcontext(lambda: False) as heard:
        capture = _capture(path)
        stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        while capture.isOpened() and position - last < _GIVEN_UP:
            position += 1
            if not capture.grab():
                broken.append(position)
                heard()
                continue
            now = capture.get(cv2.CAP_PROP_PTS)
            if _skips(path, clock, now, position - last):
                skipped.append(position)
            if heard():
                complained.append(position)
            clock, last = now, position
        capture.release()
    return Scan(last, tuple(frame for frame in broken if frame < last), tuple(skipped), tuple(complained), stated)


@contextlib.contextmanager
def _caught_stderr() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether a line that matters was written to file descriptor 2 since it was asked."""
    with tempfile.TemporaryFile() as file:
        kept, at = os.dup(2), 0

        def heard() -> bool:
            nonlocal at
            file.seek(at)
            said = file.read()
            at += len(said)
            return b"[" in said  # FFmpeg's lines begin with the decoder's name in brackets

        os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def from_video(path: Path, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray | Reject]]:
    """The wanted frames (from 1) of a video in ascending order, read once from its start.

    Yields:
      frame and [h, w, 3] uint8 RGB, or a Reject for a frame that does not decode; those behind it are read on.
    """
    capture = _capture(path)
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    position, last, clock, skipped = 0, 0, None, []
    for frame in sorted(set(wanted)):
        grabbed = False
        while capture.isOpened() and position < frame and position - last < _GIVEN_UP:
            grabbed = capture.grab()
            position += 1
            if grabbed:
                now = capture.get(cv2.CAP_PROP_PTS)
                skipped += [position] * _skips(path, clock, now, position - last)
                clock, last = now, position
        picture = capture.retrieve()[1] if grabbed and position == frame else None
        yield frame, _missing(path, frame, last) if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    capture.release()
    if skipped:
        logging.warning("%s: %s", path, skips(skipped))
    if position > last and (said := fewer(path, last + len(skipped), stated)):
        logging.warning("%s: %s", path, said)


def fewer(path: Path, frames: int, stated: float) -> str:
    """What to say where an AVI, whose header has the number, has fewer frames; empty where it has not."""
    if path.suffix.lower() != ".avi" or not 0 < frames < stated < _MOST_FRAMES:
        return ""
    return (
        f"its header states {stated:.0f} frames, {frames} can be read: it is cut short, or one is lost in the middle, "
        "and then all crops behind that are of later frames; copy the video again"
    )


def skips(frames: Sequence[int]) -> str:
    """What to say of frames in front of which an AVI holds empty ones."""
    return (
        f"the container has empty frames in front of frame {some(frames)}; they are not counted, as by a tracker that "
        "reads with OpenCV: for a text that counts them crops are late from there on"
    )


def some(frames: Sequence[int]) -> str:
    """The first eight numbers, in words."""
    return ", ".join(map(str, frames[:8])) + (", ..." if len(frames) > 8 else "")


def _skips(path: Path, before: float | None, now: float, frames: int) -> bool:
    """Whether an AVI's clock, which counts frames, went on by more than was read: an empty one is not read."""
    return path.suffix.lower() == ".avi" and before is not None and now - before > frames


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

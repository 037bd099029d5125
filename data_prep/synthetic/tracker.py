"""An imperfect tracker for the synthetic street: what it would write, and who was really there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from data_prep.sources.mottext import Box, Rectangle
from data_prep.synthetic.walk import Sighting

NOBODY = -1
MIN_VISIBLE = 0.4  # below that share a detector misses a person
TOUCH = 0.1  # overlap (intersection over union) from which two people can be confused
APART = 0.1  # overlap up to which a box is on nobody
MARGIN = 0.03  # of the box's size, around the figure
DRIFT_FRAMES = (1, 3)
GHOST_FRAMES = (4, 12)


@dataclass(frozen=True)
class Mistakes:
    """How often the tracker errs; all zero is a perfect tracker.

    Attributes:
      switches: chance that two people whose boxes touch swap their tracks when they part.
      fragments: mean number of breaks of one person's track in a video; a new track follows each.
      ghosts: tracks on nothing per person and video.
      drifts: chance per box that the next 1 to 3 boxes of the track slip off to the background.
      misses: chance per box that it is missing.
      jitter: standard deviation of a box's edges, as a share of its size.
    """

    switches: float = 0.15
    fragments: float = 0.4
    ghosts: float = 0.1
    drifts: float = 0.02
    misses: float = 0.03
    jitter: float = 0.03


class Tracked(NamedTuple):
    """One line of the track text, and the person it really shows (`NOBODY` for none)."""

    box: Box
    person: int


def track(
    sightings: Sequence[Sighting], mistakes: Mistakes, size: tuple[int, int], rng: np.random.Generator
) -> list[Tracked]:
    """Tracks the people of one video.

    Args:
      sightings: all of the video, by frame.
      mistakes: rates.
      size: width and height of the picture; boxes are not clipped to it.
      rng: decides everything that is left to chance.

    Returns:
      lines by (frame, track), tracks numbered from 1 by their first appearance.
    """
    by_frame: dict[int, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        by_frame[sighting.frame].append(sighting)
    lines = list(_follow(by_frame, mistakes, size, rng))
    people = len({sighting.person for sighting in sightings})
    for ghost in range(rng.poisson(mistakes.ghosts * people)):
        lines += _ghost(by_frame, size, -1 - ghost, rng)
    numbers: dict[int, int] = {}
    for line in sorted(lines, key=lambda line: line.box.frame):
        numbers.setdefault(line.box.track, len(numbers) + 1)
    lines = [line._replace(box=line.box._replace(track=numbers[line.box.track])) for line in lines]
    return sorted((_jittered(line, mistakes.jitter, rng) for line in lines), key=lambda line: line.box[:2])


def _follow(
    by_frame: dict[int, list[Sighting]], mistakes: Mistakes, size: tuple[int, int], rng: np.random.Generator
) -> Iterator[Tracked]:
    """The boxes on people: their tracks switch, break, drift and miss. Tracks are numbered from 0."""
    detected = {frame: [s for s in seen if s.visible >= MIN_VISIBLE] for frame, seen in sorted(by_frame.items())}
    breaks = _breaks(detected, mistakes.fragments, rng)
    track_of: dict[int, int] = {}
    touching: set[tuple[int, int]] = set()
    slipped: dict[int, int] = {}  # person -> frames for which the track is still off
    tracks = 0
    for frame, seen in detected.items():
        now = _touching(seen)
        for a, b in sorted(touching - now):
            if rng.random() < mistakes.switches:
                track_of[a], track_of[b] = track_of[b], track_of[a]
        touching = now
        for sighting in seen:
            person = sighting.person
            if person not in track_of or (person, frame) in breaks:
                track_of[person], tracks = tracks, tracks + 1
            if rng.random() < mistakes.drifts:
                slipped[person] = int(rng.integers(DRIFT_FRAMES[0], DRIFT_FRAMES[1] + 1))
            off = _beside(sighting, by_frame[frame], size, rng) if slipped.get(person, 0) else None
            slipped[person] = max(slipped.get(person, 0) - 1, 0)
            if rng.random() >= mistakes.misses:
                box = Box(frame, track_of[person], off or _grown(sighting.box))
                yield Tracked(box, NOBODY if off else person)


def _breaks(detected: dict[int, list[Sighting]], fragments: float, rng: np.random.Generator) -> set[tuple[int, int]]:
    """(person, frame) at which a new track begins though the person was followed before."""
    frames: dict[int, list[int]] = defaultdict(list)
    for frame, seen in detected.items():
        for sighting in seen:
            frames[sighting.person].append(frame)
    chosen = set()
    for person, known in sorted(frames.items()):
        count = min(int(rng.poisson(fragments)), len(known) - 1)
        chosen |= {(person, int(frame)) for frame in rng.choice(known[1:] or known, count, replace=False)}
    return chosen


def _touching(seen: list[Sighting]) -> set[tuple[int, int]]:
    return {(a.person, b.person) for a, b in combinations(seen, 2) if overlap(a.box, b.box) > TOUCH}


def _beside(
    sighting: Sighting, everybody: list[Sighting], size: tuple[int, int], rng: np.random.Generator
) -> Rectangle | None:
    """A box next to a person, on nobody; None where people stand everywhere around."""
    left, top, width, height = _grown(sighting.box)
    for side in rng.permutation([-1.0, 1.0]):
        box = (left + side * rng.uniform(1.0, 1.8) * width, top + rng.uniform(-0.25, 0.1) * height, width, height)
        if _on_nobody(box, everybody) and 0 <= box[0] <= size[0] - width:
            return box
    return None


def _ghost(
    by_frame: dict[int, list[Sighting]], size: tuple[int, int], track: int, rng: np.random.Generator
) -> list[Tracked]:
    """A track on the background for some frames, where and while nobody passes; as large as somebody there."""
    known = [sighting.box for seen in by_frame.values() for sighting in seen]
    _, top, width, height = _grown(known[rng.integers(len(known))])
    box = (rng.uniform(0, max(size[0] - width, 1)), top, width, height)
    first = int(rng.integers(1, max(by_frame) + 1))
    frames = range(first, min(first + int(rng.integers(*GHOST_FRAMES)), max(by_frame) + 1))
    return [Tracked(Box(f, track, box), NOBODY) for f in frames if _on_nobody(box, by_frame.get(f, []))]


def _on_nobody(box: Rectangle, everybody: list[Sighting]) -> bool:
    return all(overlap(box, sighting.box) <= APART for sighting in everybody)


def _grown(box: Rectangle) -> Rectangle:
    left, top, width, height = box
    dx, dy = MARGIN * width, MARGIN * height
    return left - dx, top - dy, width + 2 * dx, height + 2 * dy


def _jittered(line: Tracked, jitter: float, rng: np.random.Generator) -> Tracked:
    """The line with its box's edges moved, in hundredths of a pixel as the text holds them."""
    left, top, width, height = line.box.box
    moves = rng.normal(0, 1, 4) * jitter
    x0, y0 = left + moves[0] * width, top + moves[1] * height
    x1, y1 = left + (1 + moves[2]) * width, top + (1 + moves[3]) * height
    rounded = (round(x0, 2), round(y0, 2), round(max(x1 - x0, 1), 2), round(max(y1 - y0, 1), 2))
    return line._replace(box=line.box._replace(box=rounded))


def overlap(a: Rectangle, b: Rectangle) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / (a[2] * a[3] + b[2] * b[3] - wide * high)

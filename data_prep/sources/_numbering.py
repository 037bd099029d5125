"""Which picture a text's frame number means: where the text starts to count, by evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_CONTIGUOUS, _STRIDE = 0.9, 0.6  # share of the numbers between first and last that there are pictures of


@dataclass(frozen=True)
class Frames:
    """The pictures of a sequence.

    Attributes:
      numbers: their numbers in ascending order: in their names, or 1 .. n of a video; empty where not known.
      named: whether the numbers stand in names of picture files.
      size: (height, width) in pixels, None where not known.
      turned: whether EXIF says that pictures are to be shown turned or mirrored.
    """

    numbers: Sequence[int]
    named: bool
    size: tuple[int, int] | None = None
    turned: bool = False

    @property
    def gapless(self) -> bool:
        """Whether hardly any number is left out."""
        return bool(self.numbers) and len(self.numbers) >= _CONTIGUOUS * (self.numbers[-1] - self.numbers[0] + 1)

    @property
    def strided(self) -> bool:
        """Whether so many numbers are left out that the pictures are a selection of all frames."""
        return bool(self.numbers) and len(self.numbers) <= _STRIDE * (self.numbers[-1] - self.numbers[0] + 1)


class Numbering(NamedTuple):
    """How a text's frame numbers become numbers of pictures.

    Attributes:
      first: the number that the text gives to the first picture.
      by_position: whether it counts pictures, whatever their names; else numbers are shifted as a whole.
    """

    first: int
    by_position: bool = False

    def picture(self, frame: int, numbers: Sequence[int]) -> int:
        """Number of the picture of a text's frame; it need not exist."""
        if not numbers:
            return frame - self.first + 1
        if not self.by_position:
            return frame - self.first + numbers[0]
        at = frame - self.first
        return numbers[at] if 0 <= at < len(numbers) else -1


class Found(NamedTuple):
    """What was found.

    Attributes:
      numbering: None where two readings fit and differ.
      why: the evidence, in words.
      votes: the first numbers, 0 or 1, that this sequence allows; what others of one tracker say may decide.
      readings: first numbers that fit, where `numbering` is None.
    """

    numbering: Numbering | None
    why: str
    votes: frozenset[int]
    readings: tuple[int, ...] = ()


def given(first: int, frames: Frames) -> Numbering:
    """The numbering where somebody says what the first picture's number is."""
    return Numbering(first, by_position=frames.strided)


def find(counts: Mapping[int, int], frames: Frames, others: frozenset[int] = frozenset()) -> Found:
    """Decides where a text starts to count.

    Args:
      counts: rows per frame number of the text.
      frames: the pictures.
      others: what all sequences of one tracker say together.
    """
    if not counts:
        return Found(Numbering(frames.numbers[0] if frames.named and frames.numbers else 1), "no row", frozenset())
    start = frames.numbers[0] if frames.named and frames.numbers else 1
    by_name, positions = Numbering(start), frames.strided
    if positions and _fits(counts, frames, by_name):
        says = f"the text has frames {_span(counts)}, as the names of the pictures"
        return Found(by_name, says, frozenset({0, 1}))
    cost = {first: missing(counts, frames, Numbering(first, positions)) for first in (0, 1)}
    votes = frozenset(first for first in cost if not cost[first]) or frozenset({0, 1})
    says = f"the text has frames {_span(counts)}, {_pictures(frames)}"
    if frames.named and start > 1:
        return _late(counts, frames, by_name, cost, votes, says)
    low = min(counts)
    if cost[0] and cost[1]:
        return _neither(counts, cost, votes, says)
    if not cost[1] and cost[0] and low:
        return Found(Numbering(1, positions), says, votes)
    if not cost[0] and cost[1]:
        return Found(Numbering(0, positions), says, votes)
    if len(others) == 1:
        (first,) = others
        return Found(Numbering(first, positions), f"{says}; the other texts count from {first}", votes)
    # Counted from 0 it would reach the video's last frame, counted from 1 it ends one frame before: either happens.
    open_end = not frames.named and bool(frames.numbers) and max(counts) == frames.numbers[-1] - 1
    if (frames.named and start == 0) or open_end or others:
        return Found(None, says, votes, (0, 1))
    return Found(Numbering(1, positions), says, votes)


def missing(counts: Mapping[int, int], frames: Frames, numbering: Numbering) -> int:
    """Rows whose frame has no picture; without known pictures those before the first."""
    if not frames.numbers:
        return sum(rows for frame, rows in counts.items() if frame < numbering.first)
    known = set(frames.numbers)
    if not numbering.by_position and frames.gapless:  # a lost picture in the middle says nothing
        known = set(range(frames.numbers[0], frames.numbers[-1] + 1))
    return sum(rows for frame, rows in counts.items() if numbering.picture(frame, frames.numbers) not in known)


def _fits(counts: Mapping[int, int], frames: Frames, numbering: Numbering) -> bool:
    return missing(counts, frames, numbering) == 0


def _late(
    counts: Mapping[int, int],
    frames: Frames,
    by_name: Numbering,
    cost: Mapping[int, int],
    votes: frozenset[int],
    says: str,
) -> Found:
    """Pictures whose first number is above 1: the text has their numbers, or counts from 0 or 1."""
    start = by_name.first
    counted = [first for first in (1, 0) if not cost[first]]
    if _fits(counts, frames, by_name):
        if counted and min(counts) > start:
            return Found(None, says, votes, (start, *counted))
        return Found(by_name, f"{says}: the numbers in the names", votes)
    if len(counted) == 1 or (counted and min(counts) == 1):
        return Found(Numbering(counted[0], frames.strided), f"{says}: counted from {counted[0]}", votes)
    if counted:
        return Found(None, says, votes, tuple(counted))
    costs = {by_name: missing(counts, frames, by_name)}
    costs |= {Numbering(first, frames.strided): cost[first] for first in (1, 0)}
    return Found(min(costs, key=lambda numbering: costs[numbering]), f"{says}: not all have a picture", votes)


def _neither(counts: Mapping[int, int], cost: Mapping[int, int], votes: frozenset[int], says: str) -> Found:
    """Some rows have no picture either way: 1, as the format says, unless counting from 0 explains far more."""
    total = sum(counts.values())
    if 0 in counts and cost[0] * 2 < cost[1]:
        return Found(Numbering(0), f"{says}: {cost[0]} of {total} rows have no picture", votes)
    if counts.get(0, 0) > 0.01 * total and cost[1] > 0.01 * total:
        return Found(None, f"{says}: neither fits", votes, (0, 1))
    return Found(Numbering(1), f"{says}: {cost[1]} of {total} rows have no picture", votes)


def together(found: Sequence[Found]) -> frozenset[int]:
    """What sequences say together: first numbers, 0 or 1, that at least one of them allows alone."""
    return frozenset(next(iter(each.votes)) for each in found if len(each.votes) == 1)


def count(frames: Sequence[int]) -> Counter[int]:
    """Rows per frame number."""
    return Counter(frames)


def _span(counts: Mapping[int, int]) -> str:
    return f"{min(counts)} to {max(counts)}"


def _pictures(frames: Frames) -> str:
    if not frames.numbers:
        return "how many there are is not known"
    first, last = frames.numbers[0], frames.numbers[-1]
    return f"the pictures are {first} to {last}" if frames.named else f"the video has {last}"

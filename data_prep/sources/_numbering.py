"""Which picture a text's frame number means: where the text starts to count, by evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_STRIDE = 0.6  # share of the numbers between first and last that there are pictures of


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


NAMES = -1  # in place of a first number: the numbers in the names of the pictures
ALL = frozenset({0, 1, NAMES})


class Found(NamedTuple):
    """What was found.

    Attributes:
      numbering: None where two readings fit and differ.
      why: the evidence, in words.
      votes: the readings (0, 1, `NAMES`) that this sequence allows; what others of one tracker say may decide.
      readings: those that fit, where `numbering` is None or could have been another one.
    """

    numbering: Numbering | None
    why: str
    votes: frozenset[int]
    readings: tuple[Numbering, ...] = ()


def given(first: int, frames: Frames) -> Numbering:
    """The numbering where somebody says what the first picture's number is."""
    return Numbering(first, by_position=frames.strided and first <= 1)


def told(numbering: Numbering, frames: Frames) -> str:
    """A numbering in words, with the setting that says so."""
    if numbering == given(numbering.first, frames):
        return f"from {numbering.first} (--config.mot.first_frame={numbering.first})"
    how = "counting only the pictures that are there" if numbering.by_position else "as the names of the pictures say"
    return f"{how} (no setting says so: number the pictures without gaps, and the text alike)"


def find(counts: Mapping[int, int], frames: Frames, others: frozenset[int] = ALL) -> Found:
    """Decides where a text starts to count.

    A reading fits where every row has a picture. One is taken where no other that fits gives a row another picture, or
    where the text begins at the first picture by it alone, ends at the last by no other, and names do not object.

    Args:
      counts: rows per frame number of the text.
      frames: the pictures.
      others: the readings that all sequences of one tracker allow; they decide where several fit.
    """
    start = frames.numbers[0] if frames.named and frames.numbers else 1
    if not counts:
        return Found(Numbering(start), "no row", ALL)
    says = f"the text has frames {_span(counts)}, {_pictures(frames)}"
    readings = {NAMES: Numbering(start)} if frames.named else {}
    readings |= {first: Numbering(first, frames.strided) for first in (1, 0)}
    fits = {which: each for which, each in readings.items() if not missing(counts, frames, each)}
    if not fits:
        return _nearest(counts, frames, list(readings.values()), says)
    votes = frozenset(fits) | (frozenset() if frames.named else {NAMES})
    several = _differ(counts, frames, list(fits.values()))
    told = {which: each for which, each in fits.items() if which in others} or fits if several else {}
    left = _at_the_ends(counts, frames, told or fits)
    if _differ(counts, frames, left):
        return Found(None, says, votes, tuple(dict.fromkeys(fits.values())))
    if several and len(told) < len(fits):
        says += f"; the other texts count from {left[0].first}"
    if there := _what_is_there(counts, frames, left[0]):
        return Found(None, says, votes, (left[0], there))
    return Found(left[0], says, votes, tuple(dict.fromkeys(fits.values())) if len(told) == len(fits) else ())


def missing(counts: Mapping[int, int], frames: Frames, numbering: Numbering, exactly: bool = False) -> int:
    """Rows whose frame has no picture; without known pictures those before the first.

    A lost picture in the middle says nothing of a numbering, and counts only where it is asked for `exactly`.
    """
    if not frames.numbers:
        return sum(rows for frame, rows in counts.items() if frame < numbering.first)
    known = set(frames.numbers)
    if not numbering.by_position and not frames.strided and not exactly:
        known = set(range(frames.numbers[0], frames.numbers[-1] + 1))
    return sum(rows for frame, rows in counts.items() if numbering.picture(frame, frames.numbers) not in known)


def together(found: Sequence[Found]) -> frozenset[int]:
    """The readings that all sequences allow; none where they contradict one another."""
    return ALL.intersection(*(each.votes for each in found))


def _differ(counts: Mapping[int, int], frames: Frames, readings: Sequence[Numbering]) -> bool:
    """Whether two of the readings give a row different pictures."""
    return len({tuple(each.picture(frame, frames.numbers) for frame in counts) for each in readings}) > 1


def _at_the_ends(counts: Mapping[int, int], frames: Frames, fits: Mapping[int, Numbering]) -> list[Numbering]:
    """The reading that alone is at an end of the pictures, and that the first; else all of them."""
    low, high = min(counts), max(counts)
    first, last = (frames.numbers[0], frames.numbers[-1]) if frames.numbers else (1, 0)
    begin = [each for each in fits.values() if each.picture(low, frames.numbers) == first]
    end = [each for each in fits.values() if each.picture(high, frames.numbers) == last]
    names = [fits[NAMES]] if NAMES in fits else begin
    same = begin and not _differ(counts, frames, begin + end + names)
    return begin if same else list(fits.values())


def _what_is_there(counts: Mapping[int, int], frames: Frames, taken: Numbering) -> Numbering | None:
    """The numbering that counts the pictures that are there, where rows lie on lost ones and by it would not."""
    if taken.by_position or not frames.named or not missing(counts, frames, taken, exactly=True):
        return None
    counted = (Numbering(first, by_position=True) for first in (1, 0))
    return next((each for each in counted if not missing(counts, frames, each)), None)


def _nearest(counts: Mapping[int, int], frames: Frames, readings: Sequence[Numbering], says: str) -> Found:
    """Some rows have no picture in any reading: that with the fewest such rows, where that is beyond doubt."""
    cost = {each: missing(counts, frames, each) for each in readings}
    best, *others = sorted(cost, key=lambda each: (cost[each], min(counts) != each.first))
    # Who counts from 1 writes no 0, and who counts from 0 needs no more pictures than there are: one of it is wrong.
    sure = cost[best] * 2 < cost[others[0]] and best.first == 0
    if 0 not in counts:
        sure = cost[best] < cost[others[0]] or min(counts) == best.first
    if not sure and _differ(counts, frames, [best, others[0]]):
        return Found(None, f"{says}: neither fits", ALL, (best, others[0]))
    return Found(best, f"{says}: {cost[best]} of {sum(counts.values())} rows have no picture", ALL)


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

"""Which frame a picture of a folder is, by its name."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from data_prep.sources.pictures import is_picture, last_number, listing
from data_prep.types import SourceError

_NUMBERS = re.compile(r"[0-9]+")
_DIGITS = 1000  # of a number in a name; Python reads no more than 4300
_MOST = 0.8  # share of the pictures whose names are of one kind, from which on the others are something else


def numbered(folder: Path, suffix: str | None = None) -> dict[int, Path]:
    """Frame number -> picture: the last number in the names that tells them apart, else the position from 1.

    Of one picture in two formats one is taken, and pictures whose names are of another kind than nearly all are left
    out (a cover, a mask). With `suffix` only pictures whose names end in it, where there are any.

    Raises:
      SourceError: two series of pictures with the same numbers lie in one folder.
    """
    pictures = [path for path in listing(folder) if is_picture(path)]
    pictures = [path for path in pictures if suffix and path.name.lower().endswith(suffix.lower())] or pictures
    pictures = _one_format(_one_series(folder, pictures))
    return dict(sorted(zip(_numbers(pictures), pictures, strict=True)))


def left_out(folder: Path, suffix: str | None, taken: Sequence[Path]) -> list[Path]:
    """Pictures of a folder that `numbered` did not take, though no suffix forbids it."""
    known = set(taken)
    return [path for path in listing(folder) if is_picture(path) and path not in known] if suffix is None else []


def _one_series(folder: Path, pictures: list[Path]) -> list[Path]:
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in pictures:
        kinds[_NUMBERS.sub("#", path.stem)].append(path)
    most = max(kinds.values(), key=len, default=pictures)
    if len(most) >= _MOST * len(pictures):
        return most
    numbers = [last_number(stem) for stem in {path.stem for path in pictures}]
    if None in numbers or len(set(numbers)) < len(numbers):
        names = ", ".join(some[0].name for some in list(kinds.values())[:4])
        raise SourceError(
            f"{folder} holds pictures of {len(kinds)} kinds, {names}, whose names do not number them all together; "
            "expected one series of frames; give each series a folder of its own"
        )
    return pictures


def _one_format(pictures: list[Path]) -> list[Path]:
    usual = Counter(path.suffix for path in pictures)
    best: dict[str, Path] = {}
    for path in pictures:
        known = best.setdefault(path.stem, path)
        if usual[path.suffix] > usual[known.suffix]:
            best[path.stem] = path
    return list(best.values())


def _numbers(pictures: Sequence[Path]) -> list[int]:
    runs = [_NUMBERS.findall(path.stem) for path in pictures]
    if len({len(each) for each in runs}) > 1:
        runs = [each[-1:] for each in runs]
    for column in reversed(list(zip(*runs, strict=True))):
        if max(map(len, column)) < _DIGITS and len(set(map(int, column))) == len(column):
            return list(map(int, column))
    return list(range(1, len(pictures) + 1))

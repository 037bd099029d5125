"""What the names of crops say: who, which camera, when. One place for all benchmarks that name their files alike.

| benchmark | example |
|---|---|
| Market-1501 | `0002_c1s1_000451_03.jpg` (person, camera, sequence, frame, box; -1: junk, 0: a distractor) |
| DukeMTMC-reID, Occluded-Duke | `0005_c2_f0046985.jpg` |
| CUHK03-NP | `0001_c1_01.png` |
| VeRi-776 | `0001_c001_00016450_0.jpg` |
| MARS | `0001C1T0001F001.jpg` (person, camera, tracklet, frame; 00-1: junk) |
| DukeMTMC-VideoReID | `0001_C6_F0001_X169494.jpg` |
| MSMT17 | `0000_000_01_0303morning_0008_0.jpg` (person, number, camera, date and hour, frame, box) |
| LUPerson-NL, ENTIRe-ID and others | `0001_c03_anything.jpg` (person, camera) |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

JUNK = -1
MAX_GAP = 300  # frames between two crops of one tracklet
EXAMPLES = (
    "0002_c1s1_000451_03.jpg (Market-1501), 0005_c2_f0046985.jpg (DukeMTMC), 0001_c1_01.png (CUHK03-NP), "
    "0001_c001_00016450_0.jpg (VeRi), 0001C1T0001F001.jpg (MARS), 0000_000_01_0303morning_0008_0.jpg (MSMT17)"
)

# Each with whether its frame is a moment that other crops of the camera share, not a mere position.
_PATTERNS = tuple(
    (re.compile(pattern), timed)
    for pattern, timed in (
        (r"(?P<person>-1|\d+)_c(?P<camera>\d+)s(?P<sequence>\d+)_(?P<frame>\d+)_(?P<box>\d+)", True),
        (r"(?P<person>00-1|\d+)C(?P<camera>\d+)T(?P<tracklet>\d+)F(?P<frame>\d+)", False),
        (r"(?P<person>-1|\d+)_C(?P<camera>\d+)_F\d+_X(?P<frame>\d+)", True),
        (r"(?P<person>-1|\d+)_c(?P<camera>\d+)_f(?P<frame>\d+)", True),
        (r"(?P<person>-1|\d+)_c(?P<camera>\d+)_(?P<frame>\d{5,})(_(?P<box>\d+))?", True),
        (r"(?P<person>-1|\d+)_c(?P<camera>\d+)_(?P<frame>\d+)(_(?P<box>\d+))?", False),
        (r"(?P<person>-1|\d+)_\d+_(?P<camera>\d+)_(?P<sequence>\d+[a-z]+)_(?P<frame>\d+)_(?P<box>\d+)(_\w+)?", False),
        (r"(?P<person>-1|\d+)_[Cc](?P<camera>\d+)(_[\w-]+)?", False),
    )
)
_ABSENT = {"tracklet": -1, "frame": -1, "box": 0}


class CropName(NamedTuple):
    """One parsed name.

    Attributes:
      person: from 0; -1 for junk.
      camera: its number.
      sequence: of the camera, as text; empty where the name has none.
      tracklet: number of the tracklet, -1 where the name has none.
      frame: -1 where the name has none.
      box: number of the box within the frame, 0 where the name has none.
      timed: whether equal frames of one camera are one moment.
    """

    person: int
    camera: int
    sequence: str
    tracklet: int
    frame: int
    box: int
    timed: bool

    @property
    def known(self) -> bool:
        """Whether it is a person's: number 0 means a distractor everywhere but in MSMT17, which counts from 0."""
        return self.person > 0 or (self.person == 0 and self.sequence.isalnum() and not self.sequence.isdigit())

    @property
    def video(self) -> str:
        """Camera and sequence, as in "c1s1"; "c1" where there is no sequence."""
        return f"c{self.camera}" + (f"s{self.sequence}" if self.sequence else "")

    def continues(self, last: CropName) -> bool:
        """Whether it is of the tracklet of `last`, the crop before it when a video's names are sorted.

        A tracklet is what the name says (MARS), else what a tracker could have delivered: crops of one person, camera
        and sequence with gaps of at most `MAX_GAP` frames. Whoever is unknown is a tracklet each.
        """
        same = self.known and (self.video, self.person, self.tracklet) == (last.video, last.person, last.tracklet)
        return same and (self.tracklet >= 0 or self.frame - last.frame <= MAX_GAP)


def parse(name: str) -> CropName | None:
    """What a file name says; None where it is of none of the known forms."""
    stem = name.split(".")[0]  # Market has a few .jpg.jpg
    for pattern, timed in _PATTERNS:
        if match := pattern.fullmatch(stem):
            said = match.groupdict()
            person = JUNK if said["person"] == "00-1" else int(said["person"])
            tracklet, frame, box = (int(said.get(name) or other) for name, other in _ABSENT.items())
            return CropName(person, int(said["camera"]), said.get("sequence") or "", tracklet, frame, box, timed)
    return None


def tracklets(names: Sequence[CropName]) -> np.ndarray:
    """[n] int64, which crops are of one tracklet as `CropName.continues` has it: the names' people tell no more."""
    order = sorted(range(len(names)), key=lambda i: (names[i].video, names[i]))
    number, found = -1, np.zeros(len(names), np.int64)
    for place, i in enumerate(order):
        number += not (place and names[i].continues(names[order[place - 1]]))
        found[i] = number
    return found

"""One sequence with its text read, before anything is decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data_prep.config import MotConfig
from data_prep.sources import _formats, _reading, _sequences
from data_prep.sources._numbering import Frames
from data_prep.sources._reading import Evidence, Others, Reading
from data_prep.sources._rows import Table
from data_prep.sources._sequences import Clip
from data_prep.sources.frames import numbered, of_pictures, of_video, scan
from data_prep.types import SourceError

_SHORT = 100_000  # frames of a video that are counted one by one where its header leaves a doubt


class Opened:
    """One sequence with its text read, before anything is decided."""

    def __init__(self, clip: Clip, settings: MotConfig):
        """Reads the text and looks at the pictures; raises SourceError where the text cannot be read."""
        if clip.text is None:
            raise SourceError(f"there is no track text for {clip.name}")
        self.clip = clip
        self.pictures = numbered(clip.pictures, clip.suffix) if clip.pictures else {}
        self.table: Table = _formats.load(clip.text, clip.prefix)
        if settings.order == "id,frame":
            self.table = _reading.swap(self.table)
        self.frames: Frames = of_video(clip.video) if clip.video else of_pictures(self.pictures)
        self.evidence: Evidence = _reading.examine(self.table, self.frames)
        if clip.video and self.evidence.numbering.numbering is None and len(self.frames.numbers) < _SHORT:
            counted = scan(clip.video).frames  # a header may be off by a frame
            self.frames = Frames(range(1, counted + 1), named=False, size=self.frames.size)
            self.evidence = _reading.examine(self.table, self.frames)

    def decide(self, settings: MotConfig, others: Others) -> Reading:
        """How it is read, by its own evidence, that of others, and what the user says before all."""
        names = _sequences.class_names(self.clip)
        found = _reading.decide(self.table, self.frames, self.evidence, settings, others, names)
        stated, size = self.clip.size, self.frames.size
        if settings.box is not None or stated is None or size is None or stated == size:
            return found
        problem = (
            f"seqinfo.ini says pictures of {stated[1]} x {stated[0]}, they are {size[1]} x {size[0]}: the boxes may be "
            "of either; correct seqinfo.ini or the pictures, or say --config.mot.box=xywh where boxes are of the latter"
        )
        return replace(found, problems=(*found.problems, problem))

    def path(self, number: int) -> Path | None:
        """The file that holds a frame: its picture, or the video; None where there is no such picture."""
        if self.clip.video:
            return self.clip.video if number > 0 else None
        return self.pictures.get(number)

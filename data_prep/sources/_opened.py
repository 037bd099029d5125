"""One sequence with its text read, before anything is decided; read once, though several look at it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

from cion_jax.common.files import read_regular
from data_prep.config import MotConfig
from data_prep.sources import _formats, _numbering, _reading, _sequences
from data_prep.sources._numbering import Frames
from data_prep.sources._picture_numbers import numbered
from data_prep.sources._reading import Evidence, Others, Reading
from data_prep.sources._rows import Table
from data_prep.sources._sequences import Clip
from data_prep.sources.frames import of_pictures, of_video, scan
from data_prep.types import SourceError

_SHORT = 100_000  # frames of a video that are counted one by one where its header leaves a doubt
_GARBLED = 0.8  # share of lines that are no rows, from which on a text is another thing than it was taken for
_KEPT = 200_000  # rows that are kept for who reads them next, some 120 MB


_TURNED = (
    "EXIF says that the pictures are to be turned: a tracker that reads with OpenCV saw them turned, one that reads "
    "with PIL did not, and the boxes may be of either; turn the pictures themselves as the tracker saw them and drop "
    "the tag (mogrify -auto-orient, or exiftool -Orientation=)"
)


class Opened:
    """One sequence with its text read, before anything is decided."""

    def __init__(self, clip: Clip, settings: MotConfig, pictures: dict[int, Path]):
        """Reads the text and looks at the pictures; raises SourceError where the text cannot be read."""
        if clip.text is None:
            raise SourceError(f"there is no track text for {clip.name}")
        self.clip, self.pictures = clip, pictures
        self.table: Table = _formats.load(clip.text, clip.prefix)
        _refuse_garbled(self.table)
        if settings.order == "id,frame":
            self.table = _reading.swap(self.table)
        self.frames: Frames = of_video(clip.video) if clip.video else of_pictures(self.pictures)
        self.evidence: Evidence = _reading.examine(self.table, self.frames)
        self._counted = clip.video is None
        self._decided: dict[Hashable, Reading] = {}

    def decide(self, settings: MotConfig, others: Others) -> Reading:
        """How it is read, by its own evidence, that of others, and what the user says before all."""
        names = _sequences.class_names(self.clip)
        key = (settings, others, names)
        if key not in self._decided:
            found = self._read(settings, others, names)
            if (found.numbering_problem or self._beyond(found)) and self._count():
                found = self._read(settings, others, names)
            self._decided[key] = found
        return self._decided[key]

    def path(self, number: int) -> Path | None:
        """The file that holds a frame: its picture, or the video; None where there is no such picture."""
        if self.clip.video:
            return self.clip.video if number > 0 else None
        return self.pictures.get(number)

    def _read(self, settings: MotConfig, others: Others, names: tuple[str, ...]) -> Reading:
        found = _reading.decide(self.table, self.frames, self.evidence, settings, others, names)
        if self.frames.turned:
            found = replace(found, problems=(*found.problems, _TURNED))
        stated, size = self.clip.size, self.frames.size
        if settings.box is not None or stated is None or size is None or stated == size:
            return found
        problem = (
            f"seqinfo.ini says pictures of {stated[1]} x {stated[0]}, they are {size[1]} x {size[0]}: the boxes may be "
            "of either; correct seqinfo.ini or the pictures, or say --config.mot.box=xywh where boxes are of the latter"
        )
        return replace(found, problems=(*found.problems, problem))

    def _beyond(self, reading: Reading) -> bool:
        """Whether a row lies behind the last of the frames that a header states; none is known without one."""
        numbers, last = self.frames.numbers, max(self.evidence.counts, default=0)
        return not numbers or reading.numbering.picture(last, numbers) > numbers[-1]

    def _count(self) -> bool:
        """Counts a video's frames where only its header was asked, which may be off; whether that was new."""
        if self._counted or self.clip.video is None or len(self.frames.numbers) >= _SHORT:
            return False
        self._counted, said = True, self.frames
        self.frames = Frames(range(1, scan(self.clip.video).frames + 1), named=False, size=said.size)
        if self.frames != said:
            numbering = _numbering.find(self.evidence.counts, self.frames)
            self.evidence = replace(self.evidence, numbering=numbering)
        return self.frames != said


def _refuse_garbled(table: Table) -> None:
    lines = len(table.rows) + len(table.rejects)
    if table.rows and len(table.rejects) > _GARBLED * lines:
        first = table.rejects[0]
        raise SourceError(
            f"{len(table.rejects)} of {lines} lines of {table.path} are no rows of {table.format}; the first: "
            f"{first.where}: {first.detail}"
        )


def opened(clip: Clip, settings: MotConfig) -> Opened:
    """A sequence with its text read; what was read before of the same files is taken again.

    Raises:
      SourceError: there is no text, or it cannot be read.
    """
    pictures = numbered(clip.pictures, clip.suffix) if clip.pictures else {}
    first = next(iter(pictures.values()), None)
    key = (clip, settings.order, _content(clip.text), _status(clip.video), _status(first), tuple(pictures))
    with _LOCK:
        found = _RECENT.pop(key, None) or Opened(clip, settings, pictures)
        _RECENT[key] = found
        rows = sum(len(each.table.rows) for each in _RECENT.values())
        while rows > _KEPT:
            rows -= len(_RECENT.popitem(last=False)[1].table.rows)
    return found


def forget() -> None:
    """Drops all that is kept of texts."""
    with _LOCK:
        _RECENT.clear()


_RECENT: OrderedDict[Hashable, Opened] = OrderedDict()  # those used last at the end
_LOCK = threading.Lock()


def _content(text: Path | None) -> Hashable:
    """Digest of a text; of a folder of texts names, sizes and times."""
    if text is None or not text.is_dir():
        try:
            return hashlib.sha256(read_regular(text)).digest() if text else None
        except OSError:
            return None  # reading it says what is wrong
    return _formats.class_names(text), tuple((path.name, _status(path)) for path in _formats.per_frame(text))


def _status(path: Path | None) -> Hashable:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return status and (status.st_size, status.st_mtime_ns, status.st_ino)

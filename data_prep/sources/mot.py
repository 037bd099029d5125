"""Sequences: pictures or a video, and a text of tracks that says where people are; MOTChallenge's layout and others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from data_prep.config import MotConfig
from data_prep.sources import REGISTRY, _findings, _reading, _sequences, mottext
from data_prep.sources._opened import Opened, opened
from data_prep.sources._reading import Located, Others, Reading
from data_prep.sources._rows import Table
from data_prep.sources._sequences import PICTURES, TRACKS, Clip
from data_prep.sources.frames import cut, from_pictures, from_video, is_video, scan
from data_prep.sources.pictures import drop_duplicates
from data_prep.types import Finding, Image, Reject, SourceError

_DETECTIONS = "det/det.txt"  # of MOTChallenge
TRUTH = "truth.txt"
_ASKED = 64  # sequences whose texts are read to find out what they say together


@REGISTRY.add("mot")
class Mot:
    """A crop is cut for every box of a track of every sequence (`_sequences` says where they are looked for).

    What a text means (where its frames start, sizes or corners, classes) is found by evidence (`_reading`); what the
    evidence leaves open is refused with a SourceError, never guessed. `Image.frame` is the number of the picture, or of
    the frame of a video from 1, whatever the text counts from. `truth` is known only where `truth.txt` lies in the
    sequence's folder: the same lines with the person in place of the track, negative for a box on nobody. It is matched
    by frame and box, which must be equal as numbers; track ids say nothing beyond their own video and are never taken
    for truth.
    """

    layout = (
        "<sequence>/img1/<frame>.jpg or <sequence>/<one video file>, and in the sequence tracks.txt or gt/gt.txt with "
        "lines frame,id,left,top,width,height,..."
    )
    identified, timed = False, True
    container: Path | None = None

    def __init__(self, root: Path, tracks: str | None = None, settings: MotConfig | None = None):
        """Lists the sequences; `tracks` is where the track texts are, `settings` how they are read."""
        self.root, self.settings = root, settings or MotConfig()
        self._texts = (tracks,) if tracks else TRACKS
        clips, self.rejected = _sequences.find(root, tracks)
        self.clips = {clip.name: clip for clip in clips}
        if not clips:
            raise SourceError(
                f"no sequence in {root}; expected folders with {PICTURES[0]}/ or a video file and a track text "
                f"({', '.join(self._texts)}, or one named as the video)"
            )

    def videos(self) -> list[str]:
        """Sorted names of the sequences."""
        return sorted(self.clips)

    @cached_property
    def others(self) -> Others:
        """What the texts of up to 64 sequences, evenly chosen, say together beyond doubt."""
        usable = [clip for name, clip in sorted(self.clips.items()) if clip.text is not None and clip.problem is None]
        chosen = [usable[i] for i in sorted(set(np.linspace(0, len(usable) - 1, _ASKED).astype(int)))] if usable else []
        evidence = []
        for clip in chosen:
            try:
                each = opened(clip, self.settings)
            except SourceError:
                continue
            if each.table.first_frame is None and each.table.box is None:
                evidence.append(each.evidence)
        return _reading.agree(evidence)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """One image per box of a track; boxes without a track (negative id) become Rejects.

        Raises:
          SourceError: it cannot be decided how the text is to be read; both readings are named.
        """
        clip = self.clips[video]
        if clip.problem is not None:
            return [], [clip.problem]
        if clip.text is None:
            return [], [self._no_text(clip)]
        try:
            found = opened(clip, self.settings)
        except SourceError as error:
            return [], [Reject("unreadable track text", str(clip.text), str(error))]
        reading = found.decide(self.settings, self.others)
        if reading.problems:
            raise SourceError("; ".join(f"{clip.text}: {problem}" for problem in reading.problems))
        return self._images(found, reading)

    def _images(self, found: Opened, reading: Reading) -> tuple[list[Image], list[Reject]]:
        clip, table = found.clip, found.table
        located, aside = _reading.locate(table, found.frames, reading)
        rejects = [*table.rejects, *aside]
        truth, malformed = self._truth(found, reading)
        tracked = [each for each in located if each.row.track >= 0]
        rejects += [_detection(table, each, bool(tracked)) for each in located if each.row.track < 0]
        rejects += [_no_picture(clip, each) for each in tracked if found.path(each.picture) is None]
        kept = (each for each in tracked if found.path(each.picture) is not None)
        images, duplicates = drop_duplicates(self._image(found, each, truth) for each in kept)
        return sorted(images, key=lambda image: (image.tracklet, image.frame)), rejects + malformed + duplicates

    def examine(self, video: str) -> Finding:
        """What the text and the pictures say of each other, and how they will be read."""
        clip = self.clips[video]
        if clip.problem is not None or clip.text is None:
            reject = clip.problem or self._no_text(clip)
            return Finding(video, {}, notes=(f"{reject.reason}: {reject.detail}",), usable=False)
        try:
            found = opened(clip, self.settings)
        except SourceError as error:
            return Finding(video, {}, problems=(str(error),))
        return _findings.of(found, found.decide(self.settings, self.others), self.settings)

    def watch(self, video: str) -> list[str]:
        """Reads a video to its end and tells what OpenCV does not: frames that are broken, skipped or made up."""
        path = self.clips[video].video
        return [] if path is None else _findings.of_scan(path, scan(path, listen=True))

    def fingerprints(self) -> dict[str, str]:
        """A digest of each sequence that copies of one video share."""
        return {name: _findings.fingerprint(clip) for name, clip in self.clips.items()}

    def crops(self, images: Sequence[Image]) -> Iterator[tuple[Image, np.ndarray | Reject]]:
        """Crops of one video's images, by ascending frame; every frame is decoded once."""
        by_frame: dict[int, list[Image]] = defaultdict(list)
        for image in images:
            by_frame[image.frame].append(image)
        paths = {frame: self.root / some[0].path for frame, some in by_frame.items()}
        videos = {path for path in paths.values() if is_video(path)}
        for number, frame in from_video(videos.pop(), paths) if videos else from_pictures(paths):
            for image in by_frame[number]:
                yield image, _crop(frame, image)

    def jpeg(self, image: Image) -> None:
        """None: a crop is never a whole file."""

    def _image(self, opened: Opened, each: Located, truth: dict) -> Image:
        path, video, track = opened.path(each.picture), opened.clip.name, str(each.row.track)
        key = f"{video}/{track}/{each.picture:06d}"
        relative = str(path.relative_to(self.root)) if path else ""
        return Image(key, video, track, each.picture, relative, each.box, truth.get((each.picture, each.box)))

    def _truth(self, opened: Opened, reading: Reading) -> tuple[dict, list[Reject]]:
        """(picture, box) -> person, -1 for nobody; empty where there is no such text."""
        path = opened.clip.folder / TRUTH
        if not path.is_file():
            return {}, []
        table = mottext.table(path)
        table = _reading.swap(table) if self.settings.order == "id,frame" else table
        located, rejects = _reading.locate(table, opened.frames, reading)
        people = {(each.picture, each.box): max(each.row.track, -1) for each in located}
        return people, table.rejects + rejects

    def _no_text(self, clip: Clip) -> Reject:
        detail = f"got none of {', '.join(self._texts)}, {clip.name}.txt; expected one of them in {clip.folder}"
        texts = sorted(path.name for path in clip.folder.iterdir() if path.suffix.lower() in (".txt", ".csv"))[:4]
        if texts:
            name = texts[0] if len(texts) == 1 else "NAME"
            detail += f", which holds {', '.join(texts)}; where one is it, say --config.tracks={name}"
        if (clip.folder / _DETECTIONS).is_file():
            detail += f"; {_DETECTIONS} holds detections without tracks: run a tracker first"
        return Reject("no track text", clip.name, detail)


def _detection(table: Table, each: Located, others: bool) -> Reject:
    what = "the others have one" if others else "these are detections, run a tracker first"
    detail = f"frame {each.row.frame}, box {each.box}: a negative id; {what}"
    return Reject("box without a track", table.where(each.row), detail)


def _no_picture(clip: Clip, each: Located) -> Reject:
    place = clip.video or clip.pictures
    detail = f"no picture of frame {each.row.frame} for the box of track {each.row.track}; expected it in {place}"
    return Reject("missing frame", str(clip.folder), detail)


def _crop(frame: np.ndarray | Reject, image: Image) -> np.ndarray | Reject:
    if isinstance(frame, Reject):
        return Reject(frame.reason, image.key, f"{frame.where}: {frame.detail}")
    assert image.box is not None  # every image of this source has one
    return cut(frame, image.box, image.key)

"""Sequences in MOTChallenge's layout: pictures or a video, and a text that says where tracked people are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.sources import REGISTRY, mottext
from data_prep.sources.frames import cut, from_pictures, from_video, is_video, numbered
from data_prep.sources.pictures import drop_duplicates, folders, listing
from data_prep.types import Image, Reject, SourceError

PICTURES = "img1"
TRACKS = ("tracks.txt", "gt/gt.txt", "gt.txt")
TRUTH = "truth.txt"


@REGISTRY.add("mot")
class Mot:
    """One folder per sequence; a crop is cut for every box.

    A sequence has `img1/` or, without it, one video file, and a track text: `tracks`, or the first of
    `TRACKS`. The root may itself be a sequence. `truth` is known only where `truth.txt` lies in the
    sequence's folder: the same lines with the person in place of the track, negative for a box on nobody. It
    is matched by frame and box, which must be equal as numbers; track ids say nothing beyond their own video
    and are never taken for truth.
    """

    layout = (
        "<sequence>/img1/<frame>.jpg or <sequence>/<one video file>, and in the sequence tracks.txt or gt/gt.txt with "
        "lines frame,id,left,top,width,height,..."
    )
    identified, timed = False, True

    def __init__(self, root: Path, tracks: str | None = None):
        """Lists the sequences; `tracks` is the path of the track text within each of them."""
        self.root = root
        self.rejected: list[Reject] = []
        self._texts = (tracks,) if tracks else TRACKS
        inside = [] if self._is_sequence(root) else folders(root)
        found = [f for f in inside if self._is_sequence(f)] if inside else [root] * self._is_sequence(root)
        self.rejected += [self._no_sequence(folder) for folder in inside if folder not in found]
        self._folders = {root.resolve().name if folder == root else folder.name: folder for folder in found}
        if not found:
            raise SourceError(
                f"no sequence in {root}; expected folders with {PICTURES}/ or a video file and a track text "
                f"({', '.join(self._texts)})"
            )

    def videos(self) -> list[str]:
        """Sorted names of the sequence folders."""
        return sorted(self._folders)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """One image per box of a track; boxes without a track (negative id) become Rejects."""
        folder = self._folders[video]
        text, pixels = self._text(folder), _pixels(folder)
        if isinstance(pixels, Reject):
            return [], [pixels]
        if text is None:
            detail = f"got none of {', '.join(self._texts)}; expected one of them in {folder}"
            return [], [Reject("no track text", video, detail)]
        boxes, rejects = mottext.read(text)
        truth, malformed = _truth(folder / TRUTH)
        tracked = [box for box in boxes if box.track >= 0]
        rejects += [_detection(text, box, bool(tracked)) for box in boxes if box.track < 0]
        located = [(box, path) for box in tracked if (path := pixels(box.frame))]
        rejects += [_no_picture(folder, box) for box in tracked if not pixels(box.frame)]
        images, duplicates = drop_duplicates(self._image(video, box, path, truth) for box, path in located)
        return sorted(images, key=lambda image: (image.tracklet, image.frame)), rejects + malformed + duplicates

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

    def _is_sequence(self, folder: Path) -> bool:
        if (folder / PICTURES).is_dir():
            return True
        return self._text(folder) is not None or any(is_video(path) for path in listing(folder))

    def _no_sequence(self, folder: Path) -> Reject:
        detail = f"expected {PICTURES}/ or a video file, and a track text ({', '.join(self._texts)})"
        return Reject("no sequence", str(folder), detail)

    def _text(self, folder: Path) -> Path | None:
        return next((folder / name for name in self._texts if (folder / name).is_file()), None)

    def _image(self, video: str, box: mottext.Box, path: Path, truth: dict) -> Image:
        relative = str(path.relative_to(self.root))
        key = f"{video}/{box.track}/{box.frame:06d}"
        return Image(key, video, str(box.track), box.frame, relative, box.box, truth.get((box.frame, box.box)))


def _pixels(folder: Path) -> Callable[[int], Path | None] | Reject:
    """Frame number -> the file that holds it: its picture, or the one video file of the sequence."""
    if (folder / PICTURES).is_dir():
        return numbered(folder / PICTURES).get
    files = [path for path in listing(folder) if is_video(path)]
    if len(files) == 1:
        return lambda frame: files[0]
    names = ", ".join(path.name for path in files) or "none"
    return Reject("no video", str(folder), f"got {names}; expected {PICTURES}/ or exactly one video file")


def _truth(path: Path) -> tuple[dict[tuple[int, mottext.Rectangle], int], list[Reject]]:
    """(frame, box) -> person, -1 for nobody; empty where there is no such text."""
    if not path.is_file():
        return {}, []
    boxes, rejects = mottext.read(path)
    return {(box.frame, box.box): max(box.track, -1) for box in boxes}, rejects


def _detection(text: Path, box: mottext.Box, others: bool) -> Reject:
    what = "the others have one" if others else "these are detections, run a tracker first"
    return Reject("box without a track", str(text), f"frame {box.frame}, box {box.box}: a negative id; {what}")


def _no_picture(folder: Path, box: mottext.Box) -> Reject:
    detail = f"no picture of frame {box.frame} for the box of track {box.track}; expected it in {PICTURES}/"
    return Reject("missing frame", str(folder), detail)


def _crop(frame: np.ndarray | Reject, image: Image) -> np.ndarray | Reject:
    if isinstance(frame, Reject):
        return Reject(frame.reason, image.key, f"{frame.where}: {frame.detail}")
    assert image.box is not None  # every image of this source has one
    return cut(frame, image.box, image.key)

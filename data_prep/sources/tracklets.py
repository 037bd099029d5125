"""Crops in folders: `DIR/<video>/<tracklet>/<image>`."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from data_prep.sources import REGISTRY
from data_prep.sources.pictures import Pictures, folders, is_picture, last_number, listing
from data_prep.types import Image, Reject, SourceError


@REGISTRY.add("tracklets")
class Tracklets(Pictures):
    """One folder per video, in it one per tracklet, in it the crops.

    The natural order of the names is the order in time. An image's frame is the last number in its name where
    these numbers grow throughout the tracklet, else its position, from 0.
    """

    layout = "<video>/<tracklet>/<image>"

    def __init__(self, root: Path):
        """Lists the videos only."""
        super().__init__(root)
        self._videos = [folder.name for folder in folders(root)]
        if not self._videos:
            raise SourceError(f"no folder in {root}; expected <video>/<tracklet>/<image> beneath it")
        self.rejected = [_stray(path, "a folder per video") for path in listing(root) if not path.is_dir()]

    def videos(self) -> list[str]:
        """Sorted names of the video folders."""
        return sorted(self._videos)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images of one video folder; an empty tracklet folder becomes a Reject."""
        images, rejects = [], []
        for path in listing(self.root / video):
            if path.is_dir():
                some, bad = self._tracklet(video, path)
                images += some
                rejects += bad
            else:
                rejects.append(_stray(path, "a folder per tracklet"))
        return sorted(images, key=lambda image: (image.tracklet, image.frame)), rejects

    def _tracklet(self, video: str, folder: Path) -> tuple[list[Image], list[Reject]]:
        files = listing(folder)
        pictures = [path for path in files if is_picture(path) and path.is_file()]
        rejects = [_stray(path, "pictures only") for path in files if path not in pictures]
        if not pictures:
            detail = f"got {len(files)} other files; expected at least one jpg, jpeg, png, webp or bmp"
            rejects.append(Reject("empty tracklet", str(folder), detail))
        images = [
            Image(
                f"{video}/{folder.name}/{path.name}",
                video,
                folder.name,
                frame,
                str(path.relative_to(self.root)),
            )
            for path, frame in zip(pictures, _frames(pictures), strict=True)
        ]
        return images, rejects


def _frames(pictures: list[Path]) -> list[int]:
    numbers = [last_number(path.name) for path in pictures]
    known = [number for number in numbers if number is not None]
    grows = all(a < b for a, b in pairwise(known))
    return known if grows and len(known) == len(numbers) else list(range(len(pictures)))


def _stray(path: Path, expected: str) -> Reject:
    return Reject("file out of place", str(path), f"got {path.name!r}, expected {expected} here")

"""Folders of crops named like Market-1501's: `0002_c1s1_000451_03.jpg`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from data_prep.sources import REGISTRY
from data_prep.sources.pictures import Pictures, is_picture, listing
from data_prep.types import Image, Reject, SourceError

TRAIN_FOLDER = "bounding_box_train"
MAX_GAP = 300  # frames between two crops of one tracklet
_NAME = re.compile(r"(?P<person>-1|[0-9]+)_(?P<video>c[0-9]+s[0-9]+)_(?P<frame>[0-9]+)_(?P<box>[0-9]+)")


class _Crop(NamedTuple):
    person: int
    frame: int
    box: int
    path: Path


@REGISTRY.add("market1501")
class Market1501(Pictures):
    """Person, camera, sequence and frame are in the name; (camera, sequence) is the video.

    A tracklet is what a tracker could have delivered: crops of the same person, camera and sequence with gaps
    of at most `MAX_GAP` frames, named by frame and box of its first crop so that tracklets sort by time.
    Distractors (person 0) and junk (-1) are of unknown people: a tracklet each, truth -1.
    """

    layout = "pictures named like 0002_c1s1_000451_03.jpg, in the folder itself or in its bounding_box_train/"
    timed = True

    def __init__(self, root: Path):
        """Lists `root/bounding_box_train`, or `root` itself where there is no such folder."""
        super().__init__(root)
        folder = root / TRAIN_FOLDER if (root / TRAIN_FOLDER).is_dir() else root
        self._videos: dict[str, list[_Crop]] = {}
        for path in listing(folder):
            self._add(path)
        if not self._videos:
            raise SourceError(
                f"no crop named like 0002_c1s1_000451_03.jpg in {folder} ({len(self.rejected)} files with "
                f"other names); expected a folder of such crops or one that holds {TRAIN_FOLDER}/"
            )

    def _add(self, path: Path) -> None:
        if not is_picture(path):
            self.rejected.append(Reject("file out of place", str(path), f"got {path.name!r}, expected pictures only"))
            return
        match = _NAME.fullmatch(path.name.split(".")[0])  # Market has a few .jpg.jpg
        if not match:
            detail = f"got {path.name!r}, expected PERSON_cCAMERAsSEQUENCE_FRAME_BOX like 0002_c1s1_000451_03.jpg"
            self.rejected.append(Reject("malformed name", str(path), detail))
            return
        crop = _Crop(int(match["person"]), int(match["frame"]), int(match["box"]), path)
        self._videos.setdefault(match["video"], []).append(crop)

    def videos(self) -> list[str]:
        """Sorted keys like "c1s1"."""
        return sorted(self._videos)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images of one (camera, sequence)."""
        images = []
        tracklet, last = "", None
        for crop in sorted(self._videos[video]):
            if last is None or not _continues(last, crop):
                tracklet = f"{crop.frame:06d}_{crop.box:02d}_{crop.person}"
            images.append(self._image(video, tracklet, crop))
            last = crop
        return sorted(images, key=lambda image: (image.tracklet, image.frame, image.key)), []

    def _image(self, video: str, tracklet: str, crop: _Crop) -> Image:
        key, path = f"{video}/{tracklet}/{crop.path.name}", str(crop.path.relative_to(self.root))
        return Image(key, video, tracklet, crop.frame, path, truth=crop.person if crop.person > 0 else -1)


def _continues(last: _Crop, crop: _Crop) -> bool:
    return crop.person == last.person > 0 and crop.frame - last.frame <= MAX_GAP

"""Folders of crops that benchmarks name by person and camera: `0002_c1s1_000451_03.jpg`; see `crop_names`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cion_jax.common import crop_names
from cion_jax.common.crop_names import CropName
from cion_jax.common.files import walk
from data_prep.sources import REGISTRY
from data_prep.sources.pictures import Pictures, is_picture, listing
from data_prep.types import Image, Reject, SourceError

TRAIN_FOLDERS = ("bounding_box_train", "bbox_train", "train", "image_train")
# Folders of query and gallery: what is learned must not see them.
EVALUATION_FOLDERS = frozenset(
    {"query", "gallery", "test", "bounding_box_test", "bbox_test", "image_query", "image_test", "gt_bbox", "gt_query"}
)


class _Crop(NamedTuple):
    name: CropName
    path: Path


@REGISTRY.add("market1501")
class Market1501(Pictures):
    """Person, camera, sequence and frame are in the name; (camera, sequence) is the video.

    Crops lie in one folder or in one per person. What a tracklet is, `CropName.continues` says; it is named by frame
    and box of its first crop so that tracklets sort by time. Distractors (person 0) and junk (-1) are of unknown
    people: a tracklet each, truth -1. `timed` where all names have frame numbers of their camera.
    """

    layout = "pictures named like 0002_c1s1_000451_03.jpg, in the folder itself or in its bounding_box_train/"
    timed = True

    def __init__(self, root: Path):
        """Lists the first of `TRAIN_FOLDERS` in `root`, or `root` itself where there is none."""
        super().__init__(root)
        folder = _train_folder(root)
        self._videos: dict[str, list[_Crop]] = {}
        listing(folder)  # raises where it is no folder
        for path in sorted(walk(folder, depth=2), key=lambda path: path.name):
            if path.is_dir() and path.name in EVALUATION_FOLDERS:
                detail = (
                    f"got a folder of the evaluation, expected one of {', '.join(TRAIN_FOLDERS)} or crops to learn from"
                )
                self.rejected.append(Reject("folder of the evaluation", str(path), detail))
            elif not path.is_dir() and path.parent.name not in EVALUATION_FOLDERS - {folder.name}:
                self._add(path)
        if not self._videos:
            first = f"; the first: {self.rejected[0].detail}" if self.rejected else ""
            raise SourceError(
                f"no crop with a benchmark's name in {folder} ({len(self.rejected)} files with other names{first}); "
                f"expected names like {crop_names.EXAMPLES}, in one folder, a folder per person, or below "
                f"{TRAIN_FOLDERS[0]}/"
            )

    def _add(self, path: Path) -> None:
        if not is_picture(path):
            self.rejected.append(Reject("file out of place", str(path), f"got {path.name!r}, expected pictures only"))
            return
        name = crop_names.parse(path.name)
        if name is None:
            detail = f"got {path.name!r}, expected PERSON_cCAMERAsSEQUENCE_FRAME_BOX or as {crop_names.EXAMPLES}"
            self.rejected.append(Reject("malformed name", str(path), detail))
            return
        self.timed = self.timed and name.timed
        self._videos.setdefault(name.video, []).append(_Crop(name, path))

    def videos(self) -> list[str]:
        """Sorted keys like "c1s1"."""
        return sorted(self._videos)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images of one (camera, sequence)."""
        images = []
        tracklet, last = "", None
        for crop in sorted(self._videos[video]):
            if last is None or not crop.name.continues(last):
                tracklet = _tracklet(crop)
            images.append(self._image(video, tracklet, crop))
            last = crop.name
        return sorted(images, key=lambda image: (image.tracklet, image.frame, image.key)), []

    def _image(self, video: str, tracklet: str, crop: _Crop) -> Image:
        key, path = f"{video}/{tracklet}/{crop.path.name}", str(crop.path.relative_to(self.root))
        return Image(key, video, tracklet, crop.name.frame, path, truth=crop.name.person if crop.name.known else -1)


def _train_folder(root: Path) -> Path:
    """The folder to learn from: in the root, or in the only folder that an archive has left there; else the root."""
    inside = listing(root) if root.is_dir() else []
    places = [root, *(inside if len(inside) == 1 else [])]
    found = (place / name for place in places for name in TRAIN_FOLDERS)
    return next((path for path in found if path.is_dir()), root)


def _tracklet(first: _Crop) -> str:
    name = first.name
    if not name.known and name.frame < 0:
        return first.path.stem
    return f"{name.frame:06d}_{name.box:02d}_{name.person}" + (f"_T{name.tracklet}" if name.tracklet >= 0 else "")

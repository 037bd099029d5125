"""Crops in folders: `DIR/<video>/<tracklet>/<image>`, with fewer or more levels above the tracklets."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from cion_jax.common import crop_names
from data_prep.sources import REGISTRY
from data_prep.sources._rows import is_person
from data_prep.sources.pictures import Pictures, folders, is_picture, last_number, listing
from data_prep.types import Finding, Image, Reject, SourceError

_DEEPEST = 6  # levels of folders
_LOOKED_AT = 50  # folders that tell how deep the pictures lie
_LAYOUT = "<video>/<tracklet>/<image>"
# Classes that detectors name folders of crops by: `crops/<class>/` is no tracklet.
_CLASSES = frozenset(
    {"person", "people", "pedestrian", "bicycle", "car", "motorcycle", "motorbike", "bus", "truck", "train", "van"}
    | {"dog", "cat", "horse", "bird", "backpack", "umbrella", "handbag", "suitcase", "traffic light", "bench", "chair"}
)


@REGISTRY.add("tracklets")
class Tracklets(Pictures):
    """One folder per video, in it one per tracklet, in it the crops.

    The natural order of the names is the order in time. An image's frame is the last number in its name where
    these numbers grow throughout the tracklet, else its position, from 0. Where the pictures lie one level below the
    root, the root is the one video; where they lie deeper, a video is all levels above the tracklet ("scene1/view2").
    """

    layout = "<video>/<tracklet>/<image>"

    def __init__(self, root: Path):
        """Lists the videos only."""
        super().__init__(root)
        if not folders(root):
            raise SourceError(f"no folder in {root}; expected {_LAYOUT} beneath it")
        self._depth = _depth(root)
        self._videos = {self._name(folder): folder for folder in _at(root, self._depth - 1)}
        dropped = [name for name in self._videos if self._is_other_class(name)]
        self.rejected = [self._other_class(name) for name in dropped]
        for name in dropped:
            del self._videos[name]
        if self._depth > 1:
            self.rejected += [_stray(path, "a folder per video") for path in listing(root) if not path.is_dir()]

    def videos(self) -> list[str]:
        """Sorted names of the video folders."""
        return sorted(self._videos)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images of one video folder; an empty tracklet folder becomes a Reject."""
        images, rejects, seen = [], [], dict[Path, Path]()
        for path in listing(self._videos[video]):
            if path.is_dir() and (first := seen.setdefault(path.resolve(), path)) is not path:
                detail = f"a link to the same folder as {first}, which was taken; a tracklet counts once"
                rejects.append(Reject("folder twice", str(path), detail))
            elif path.is_dir():
                some, bad = self._tracklet(video, path)
                images += some
                rejects += bad
            else:
                rejects.append(_stray(path, "a folder per tracklet"))
        return sorted(images, key=lambda image: (image.tracklet, image.frame)), rejects

    def examine(self, video: str) -> Finding:
        """Counts, and whether the folders are tracklets at all: not classes, not people of several cameras."""
        found = super().examine(video)
        names = [path.name for path in folders(self._videos[video])]
        problems = []
        if names and all(name.lower() in _CLASSES for name in names):
            problems.append(
                f"folders {', '.join(names[:5])} are called as classes are, expected a folder per tracklet "
                f"({_LAYOUT}); write crops in folders by track id"
            )
        problems += self._several_cameras(video)
        level = "the root is the one video" if self._depth == 1 else f"{self._depth} levels above the pictures"
        return Finding(
            video, found.cells, (f"a folder is a tracklet, {level}",), found.notes, tuple(problems), found.usable
        )

    def _several_cameras(self, video: str) -> list[str]:
        """A problem where folders are people as benchmarks have them: crops of several cameras in one."""
        for path in folders(self._videos[video])[:_LOOKED_AT]:
            names = [crop_names.parse(picture.name) for picture in listing(path) if is_picture(picture)]
            cameras = {name.video for name in names if name is not None}
            if len(cameras) > 1 and None not in names:
                seen = ", ".join(sorted(cameras)[:4])
                return [
                    f"{path} holds crops of several cameras by their names ({seen}): folders of people, not of "
                    "tracklets; read it with --source=market1501, which takes person and camera from the names"
                ]
        return []

    def _name(self, folder: Path) -> str:
        return self.root.resolve().name or "." if folder == self.root else folder.relative_to(self.root).as_posix()

    def _is_other_class(self, name: str) -> bool:
        """Whether a video folder is a class of things beside one of people, as in `crops/<class>/<id>/`."""
        own, all_names = name.rpartition("/")[2], [other.rpartition("/")[2] for other in self._videos]
        if is_person(own):
            return False
        if any(map(is_person, all_names)):
            return own.replace(" ", "").isalpha()
        return all(other.lower() in _CLASSES for other in all_names)

    def _other_class(self, name: str) -> Reject:
        return Reject("not a person", str(self._videos[name]), f"a folder of class {name!r}; expected tracks of people")

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


def _depth(root: Path) -> int:
    """Levels of folders between the root and the pictures, the same in all the folders that are looked at.

    Raises:
      SourceError: pictures lie at several depths; a picture beside folders of pictures is a stray one.
    """
    found: dict[int, Path] = {}
    for folder in folders(root)[:_LOOKED_AT]:
        depth = _depth_of(folder, 1, frozenset({root.resolve()}))
        if depth is not None:
            found.setdefault(depth, folder)
    if not found:
        return 2
    if len(found) > 1:
        places = ", ".join(f"{depth} in {folder}" for depth, folder in sorted(found.items()))
        raise SourceError(f"pictures lie at several depths, {places}; expected one layout throughout, {_LAYOUT}")
    return next(iter(found))


def _depth_of(folder: Path, depth: int, above: frozenset[Path]) -> int | None:
    """Depth of the deepest folder of pictures on the way through the first folders that hold any."""
    real = folder.resolve()
    if real in above:  # a link that leads up again
        return None
    inside = listing(folder)
    below = [path for path in inside if path.is_dir()] if depth < _DEEPEST else []
    for path in below[:_LOOKED_AT]:
        if (found := _depth_of(path, depth + 1, above | {real})) is not None:
            return found
    return depth if any(is_picture(path) for path in inside) else None


def _at(root: Path, depth: int) -> list[Path]:
    """All folders at a depth below the root, each once, whatever links lead to it."""
    found, seen = [root], {root.resolve()}
    for _ in range(depth):
        below = {path.resolve(): path for folder in found for path in reversed(folders(folder))}
        found = sorted(path for real, path in below.items() if real not in seen)
        seen |= set(below)
    return found


def _frames(pictures: list[Path]) -> list[int]:
    numbers = [last_number(path.name) for path in pictures]
    known = [number for number in numbers if number is not None]
    grows = all(a < b for a, b in pairwise(known))
    return known if grows and len(known) == len(numbers) else list(range(len(pictures)))


def _stray(path: Path, expected: str) -> Reject:
    return Reject("file out of place", str(path), f"got {path.name!r}, expected {expected} here")

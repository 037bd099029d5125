"""Annotation lists: entries of a path and an identity, already identified, as CION-AL and SYNTH-PEDES come."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from data_prep.config import AnnotationsConfig
from data_prep.sources import REGISTRY, _lists, _rows
from data_prep.sources._lists import Entry, short
from data_prep.sources.pictures import Pictures, drop_duplicates, is_picture, natural
from data_prep.types import Finding, Image, Reject, SourceError

_BESIDE = ("imgs", "images", "img")  # folders beside a list in which its pictures may lie
_TRIED = 20  # paths that tell where the pictures lie
_EXAMINED = 1000  # files, evenly chosen, that are looked for before a run
_INT64 = 2**63
_DIGITS = 1000  # of an id that is taken as a number; Python reads no more than 4300


@REGISTRY.add("annotations")
class Annotations(Pictures):
    """Images whose identities are known; data_prep writes them to shards without denoising.

    The image root is what `settings.root` says, else the list's folder, or `imgs/` or `images/` beside the list where
    only there the first paths exist. The video is the first folder of the path ("sec0"), or "." for an image that lies
    in the root itself; the tracklet is the id as text. `truth` is the id where all ids are whole numbers; otherwise the
    ids, compared as text, are numbered from 0 in natural order. That a path stays below the root is judged by its text:
    folders that are links are followed.
    """

    layout = 'a JSON list of {"file_path": "sec0/1.jpg", "id": 7}, paths relative to its folder'
    identified = True

    def __init__(self, root: Path, settings: AnnotationsConfig | None = None):
        """Reads the whole list; `root` is its file or a folder that holds exactly one."""
        file = _find(root)
        parsed = [_parse(entry) for entry in _lists.load(file)]
        rows = [row for row in parsed if not isinstance(row, Reject)]
        super().__init__(_root(file, settings or AnnotationsConfig(), [path for path, _, _ in rows[:_TRIED]]))
        below = [row if isinstance(row, Reject) else _below(self.root, *row) for row in parsed]
        known = [row for row in below if not isinstance(row, Reject)]
        number = _numbers([identity for _, identity in known])
        images, duplicates = drop_duplicates(
            (_image(path, str(identity), number[str(identity)]) for path, identity in known),
            by=lambda image: image.path,
        )
        self.rejected = [row for row in below if isinstance(row, Reject)] + duplicates
        self._people = {image.truth for image in images}
        self._file, self._videos = file, dict[str, list[Image]]()
        for image in images:
            self._videos.setdefault(image.video, []).append(image)
        if not images:
            why = f"; the first of {len(self.rejected)} rejects: {self.rejected[0].detail}" if self.rejected else ""
            raise SourceError(f"no usable entry {_lists.EXPECTED} in {file}{why}")

    def videos(self) -> list[str]:
        """Sorted top folders."""
        return sorted(self._videos)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images under one top folder; those whose file is missing become Rejects."""
        images, rejects = [], []
        for image in sorted(self._videos[video], key=lambda image: (image.tracklet, natural(image.path))):
            if _is_file(self.root / image.path):
                images.append(image)
            else:
                rejects.append(self._missing(image))
        return images, rejects

    def examine(self, video: str) -> Finding:
        """Counts what is there; a list of which not one file is found is a problem."""
        images = self._videos[video]
        some = images[:: max(1, len(images) // _EXAMINED)]
        gone = [image for image in some if not _is_file(self.root / image.path)]
        cells = {"images": f"{len(images):,}", "identities": f"{len({image.truth for image in images}):,}"}
        cells["missing files"] = f"{len(gone):,} of {len(some):,}"
        notes: tuple[str, ...] = (f"files are missing, the first: {self._missing(gone[0]).detail}",) if gone else ()
        if len(self._people) == sum(map(len, self._videos.values())) > 1:
            notes += (f"no id of {self._file.name} occurs twice: are these people, or numbers of entries?",)
        usable = len(gone) < len(some) or len(some) < len(images)
        return Finding(video, cells, (f"paths of {self._file.name} start from {self.root}",), notes, usable=usable)

    def _missing(self, image: Image) -> Reject:
        detail = (
            f"no file {self.root / image.path}; expected paths that start from {self.root}; where the pictures lie "
            "elsewhere, give that folder as --config.annotations.root=DIR"
        )
        return Reject("missing file", image.key, detail)


def _find(root: Path) -> Path:
    if not root.is_dir():
        return root
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in _lists.SUFFIXES)
    plain = [path for path in files if path.suffix == ".json"]
    if len(files) != 1 and len(plain) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise SourceError(
            f"expected exactly one .json in {root} (or .jsonl, .csv), got {names}; give the file itself as input"
        )
    return plain[0] if len(plain) == 1 else files[0]


def _root(file: Path, settings: AnnotationsConfig, paths: Sequence[str]) -> Path:
    """The folder from which the paths start."""
    if settings.root is not None:
        root = Path(os.path.expanduser(settings.root))
        if not root.is_dir():
            raise SourceError(f"config.annotations.root={settings.root} is no folder; give the one of the pictures")
        return root
    places = [file.parent, *(file.parent / name for name in _BESIDE)]
    return next((place for place in places if any(_is_file(place / path) for path in paths)), file.parent)


def _is_file(path: Path) -> bool:
    """Whether it is a file; a name that is too long for any is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _parse(entry: Entry) -> tuple[str, int | str, str] | Reject:
    """(path, id, where) of one entry of the list."""
    if entry.wrong:
        return Reject("malformed entry", entry.where, entry.wrong)
    path = entry.path
    if isinstance(path, str) and "\\" in path and "/" not in path:
        path = path.replace("\\", "/")
    if not isinstance(path, str) or "\0" in path or not is_picture(Path(path)):
        detail = f"got file_path {short(entry.path)}, expected the path of a jpg, jpeg, png, webp or bmp"
        return Reject("malformed entry", entry.where, detail)
    identity = _identity(entry.identity)
    if identity is None:
        detail = f"got id {short(entry.identity)}, expected a whole number from 0 or a text"
        return Reject("malformed entry", entry.where, detail)
    return path, identity, entry.where


def _identity(value: object) -> int | str | None:
    """A whole number from 0 or a text that is not blank; None where it is neither."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if isinstance(value, _lists.Fraction):
        with contextlib.suppress(ValueError):
            return _rows.whole(value)
        return None
    return value if value.strip() else None


def _below(root: Path, path: str, identity: int | str, where: str) -> tuple[str, int | str] | Reject:
    """(path below the root, id)."""
    normal = posixpath.normpath(path)
    if normal.startswith("/"):
        normal = posixpath.relpath(normal, posixpath.abspath(root))
    if normal.startswith("../"):
        detail = f"got {path!r}, expected a path that stays below {root}; another root is --config.annotations.root=DIR"
        return Reject("path outside the image root", where, detail)
    return normal, identity


def _image(path: str, identity: str, truth: int) -> Image:
    video, _, rest = path.partition("/") if "/" in path else (".", "", path)
    return Image(f"{video}/{identity}/{rest}", video, identity, -1, path, truth=truth)


def _numbers(identities: list[int | str]) -> dict[str, int]:
    if all(str(identity).isdecimal() and len(str(identity)) < _DIGITS for identity in identities):
        numbers = {str(identity): int(identity) for identity in identities}
        if len(set(numbers.values())) == len(numbers) and max(numbers.values(), default=0) < _INT64:
            return numbers
    return {name: i for i, name in enumerate(sorted({str(identity) for identity in identities}, key=natural))}

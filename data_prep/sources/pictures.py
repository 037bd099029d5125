"""What all sources of picture files share: listing, order, decoding."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cion_jax.common import images
from cion_jax.common.files import read_regular
from data_prep.types import Finding, Image, Reject, SourceError

_NUMBERS = re.compile(r"([0-9]+)")
_DIGITS = 1000  # of a number in a name; Python reads no more than 4300


class Pictures:
    """The half of a Source that concerns pixels, for formats whose images are whole picture files."""

    identified, timed = False, False
    container: Path | None = None

    def __init__(self, root: Path):
        self.root = root
        self.rejected: list[Reject] = []

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images of one video; see `data_prep.types.Source`."""
        raise NotImplementedError

    def examine(self, video: str) -> Finding:
        """Counts images, tracklets and what is set aside; see `data_prep.types.Source`."""
        images, rejects = self.read(video)
        tracklets = len({image.tracklet for image in images})
        cells = {"images": f"{len(images):,}", "tracklets": f"{tracklets:,}", "set aside": f"{len(rejects):,}"}
        first = f"; the first reject: {rejects[0].where}: {rejects[0].detail}" if rejects else ""
        notes: tuple[str, ...] = () if images else (f"no image in {video!r}{first}",)
        if images and _turned(self.root / images[0].path):
            notes += ("EXIF says that pictures are to be turned; they are taken as they are stored",)
        return Finding(video, cells, ("whole pictures are taken as crops",), notes, usable=bool(images))

    def crops(self, images: Sequence[Image]) -> Iterator[tuple[Image, np.ndarray | Reject]]:
        """Decoded pictures in the order given; see `data_prep.types.Source`."""
        for image in images:
            yield image, load(self.root / image.path, image.key)

    def jpeg(self, image: Image) -> bytes | None:
        """The file's bytes where it is a JPEG, else None."""
        data = read_regular(self.root / image.path)
        return data if images.is_jpeg(data) else None


def _turned(path: Path) -> bool:
    try:
        return images.orientation(read_regular(path)) != 1
    except OSError:
        return False


def load(path: Path, where: str) -> np.ndarray | Reject:
    """Reads and decodes one picture file; a Reject for `where` if it cannot be."""
    try:
        return images.decode(read_regular(path))
    except (OSError, images.PictureError) as error:
        return Reject("unreadable image", where, f"{path}: {error}")


def natural(name: str) -> tuple:
    """Sorting key that puts frame 10 after frame 9; equal keys fall back to the name itself."""
    parts = _NUMBERS.split(name)
    return tuple((int(p), "") if i % 2 and len(p) < _DIGITS else (0, p) for i, p in enumerate(parts)), name


def last_number(name: str) -> int | None:
    """The last run of digits in a file's stem: `seq2_frame000123.jpg` -> 123; None where there is none."""
    runs = re.findall(r"[0-9]+", Path(name).stem)
    return int(runs[-1]) if runs and len(runs[-1]) < _DIGITS else None


def is_picture(path: Path) -> bool:
    """Whether the name says that this file is a picture."""
    return path.suffix.lower() in images.SUFFIXES


def listing(folder: Path) -> list[Path]:
    """What lies in a folder, in natural order, without hidden files; raises SourceError where it is no folder."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; expected the input's root folder")
    return sorted(
        (p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX", "@eaDir"))),
        key=lambda p: natural(p.name),
    )


def folders(folder: Path) -> list[Path]:
    """The sub-folders of a folder, in natural order."""
    return [p for p in listing(folder) if p.is_dir()]


def drop_duplicates(
    images: Iterable[Image], by: Callable[[Image], str] = lambda image: image.key
) -> tuple[list[Image], list[Reject]]:
    """Keeps the first of all images that are one `by` that measure; the others become Rejects."""
    kept: dict[str, Image] = {}
    rejects = []
    for image in images:
        first = kept.setdefault(by(image), image)
        if first is not image:
            detail = f"got {_content(image)} besides {_content(first)}, expected one of them; the first was kept"
            rejects.append(Reject("duplicate key", image.key, detail))
    return list(kept.values()), rejects


def _content(image: Image) -> str:
    return f"{image.path} of {image.tracklet}" + (f" at {image.box}" if image.box else "")

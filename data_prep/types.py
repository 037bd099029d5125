"""What travels between the stages of data_prep: references and features, never pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cion_jax.common.errors import UserError


@dataclass(frozen=True, slots=True)
class Image:
    """One crop of one person, by reference.

    Attributes:
      key: unique in the dataset; "<video>/<tracklet>/<name>".
      video: key of the video.
      tracklet: name of the tracklet, unique within the video.
      frame: frame number in the video, -1 where unknown.
      path: file that holds the pixels (a picture or a video), relative to the source's root.
      box: left, top, width, height in pixels within the frame; None means the whole picture.
      truth: the true identity where the source knows it (-1 for a crop of nobody), else None. For scoring only.
    """

    key: str
    video: str
    tracklet: str
    frame: int
    path: str
    box: tuple[float, float, float, float] | None = None
    truth: int | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """One input that was set aside, and why.

    Attributes:
      reason: short and countable: "unreadable image", "malformed line", "box outside the frame", ...
      where: file (and line), key or video that it concerns.
      detail: what was got, what was expected.
    """

    reason: str
    where: str
    detail: str

    def line(self) -> str:
        """One line of JSON; what is no text in a name is escaped."""
        text = json.dumps(asdict(self), ensure_ascii=False) + "\n"
        return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a source sees in one video before anything is cropped.

    Attributes:
      video: its key.
      cells: what was counted, by name, in words.
      does: what will be done and why, a line each.
      notes: what a reader should know, beyond what is usual.
      problems: what cannot be decided, with all readings and how to choose one; none of it may be guessed.
      usable: whether there is anything to read.
    """

    video: str
    cells: dict[str, str]
    does: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    usable: bool = True


def is_text(name: str) -> bool:
    """Whether a name can be written down: on some file systems any bytes can be one."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class SourceError(UserError):
    """Nothing can be read from this input at all."""


class Source(Protocol):
    """One input format. Built from a root folder; raises SourceError where that holds nothing usable.

    What `read` returns and the files behind it are all that determines what `crops` and `jpeg` give: work is
    remembered by them.

    Attributes:
      layout: what the input looks like, for people who gave something else.
      root: folder that the paths of images are relative to.
      container: the one file that holds the pixels of all images; None: `Image.path` names each one's.
      identified: the identities are known already (`Image.truth` holds them); no denoising is needed.
      timed: equal frame numbers within a video are the same moment; elsewhere they may be mere positions.
      rejected: inputs set aside while the root was listed, before any video of theirs was known.
    """

    layout: str
    root: Path
    container: Path | None
    identified: bool
    timed: bool
    rejected: list[Reject]

    def videos(self) -> list[str]:
        """Sorted keys of all videos."""
        ...

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All images of one video, ordered by (tracklet, frame); touches no pixels that it can leave alone."""
        ...

    def examine(self, video: str) -> Finding:
        """What can be seen in one video, and what will be done with it; decodes hardly anything."""
        ...

    def crops(self, images: Sequence[Image]) -> Iterator[tuple[Image, np.ndarray | Reject]]:
        """Decoded crops ([h, w, 3] uint8 RGB) of images of *one* video, each frame decoded once, in any order."""
        ...

    def jpeg(self, image: Image) -> bytes | None:
        """The untouched JPEG bytes where the image is a whole JPEG file, else None (data_prep then encodes)."""
        ...


class Embedder(Protocol):
    """Crops -> features.

    Attributes:
      name: as given on the command line.
      digest: SHA-256 of what determines the features (file contents or code version), for the data card.
    """

    name: str
    digest: str

    def __call__(self, crops: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB crops of any sizes -> [n, d] float32 features, L2-normalized.

        Rows that cannot be normalized (not finite, all zero) are returned as they are; data_prep sets them aside.
        """
        ...

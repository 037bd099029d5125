"""A target domain: images of people whom nobody has named, and what is known of them all the same.

| folder | read |
|---|---|
| with `index.npz` | identity shards, whose identities are not looked at |
| with `list_train.txt` | MSMT17, the images of its lists |
| with `bounding_box_train`, `bbox_train` or `image_train` | the images in it |
| any other | every image in it and in the folders below |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cion_jax.common import crop_names
from cion_jax.common.images import SUFFIXES
from cion_jax.common.paths import local_path
from cion_jax.data import records, train_split
from cion_jax.data.image_files import FileReader
from cion_jax.data.records import DatasetError, is_data
from cion_jax.data.shards import ShardReader
from cion_jax.data.train_split import Protocol

_CHUNK = 256  # records read at a time
_JUNK = -1


@dataclass(frozen=True, eq=False)
class Target:
    """A data set without labels; N images in the order of their paths, or of their records.

    Attributes:
      reader: of the images.
      camera: [N] int64, -1 where it is not known.
      video: [N] int64, a camera's sequence, -1 where it is not known.
      frame: [N] int64, the moment within the video, -1 where it is not known.
      truth: [N] int64 who it is, -1 for nobody in particular: only to watch how training goes. None: not known.
    """

    reader: ShardReader | FileReader
    camera: np.ndarray
    video: np.ndarray
    frame: np.ndarray
    truth: np.ndarray | None

    def __len__(self) -> int:
        return len(self.camera)


def open_target(path: str | Path, protocol: Protocol = "trainval") -> Target:
    """Opens the training images of a folder without their labels.

    Args:
      path: see above.
      protocol: of MSMT17, which lists.

    Raises:
      DatasetError: no such folder, no image in it, or a list that does not fit the files.
    """
    folder = local_path(str(path), "the folder of the images")
    if not folder.is_dir():
        raise DatasetError(f"{path} is no folder; give a folder of images, a benchmark as unpacked, or identity shards")
    if is_data(folder):
        return _of_shards(ShardReader.of_intact(folder))
    root, paths = _files(folder, protocol)
    if not paths:
        raise DatasetError(f"no image in {root}; expected files ending in {', '.join(SUFFIXES)}")
    reader = FileReader(root, paths, np.zeros(len(paths), np.int64))
    return _of_names(reader, [crop_names.parse(Path(reader.where(i)).name) for i in range(len(reader))])


def _files(folder: Path, protocol: Protocol) -> tuple[Path, list[Path]]:
    if train_split.is_listed(folder):
        place, files = train_split.listed(folder, protocol)
        return place, [file for file, _ in files]
    return train_split.train_images(folder)


def _of_names(reader: FileReader, names: list[crop_names.CropName | None]) -> Target:
    """What the names of the files say; where none says a person, the truth is not known."""
    camera = np.array([name.camera if name else -1 for name in names])
    frame = np.array([name.frame if name and name.timed else -1 for name in names])
    truth = np.array([name.person if name and name.known else _JUNK for name in names])
    video = _numbered([name.video if name else "" for name in names])
    return Target(reader, camera, video, frame, truth if (truth != _JUNK).any() else None)


def _of_shards(reader: ShardReader) -> Target:
    """Videos and frames of the records; a video counts as a camera."""
    video, frame = [], []
    for start in range(0, len(reader), _CHUNK):
        for fields in reader.read(range(start, min(start + _CHUNK, len(reader)))):
            video.append(fields[records.VIDEO] if fields else "")
            frame.append(fields[records.FRAME] if fields else -1)
    number = _numbered(video)
    return Target(reader, number, number, np.array(frame), None)


def _numbered(texts: list[str]) -> np.ndarray:
    """Numbers for texts, in their sorted order; -1 for empty ones."""
    known, number = np.unique(texts, return_inverse=True)
    return number - (1 if known[0] == "" else 0)

"""The training images of a benchmark as it was unpacked, or identity shards: whatever people fine-tune on.

| folder | read |
|---|---|
| with `index.npz` | identity shards, written by `python -m data_prep` |
| with `list_train.txt` | MSMT17, V1 and V2: lines `0000/0000_000_01_0303morning_0008_0.jpg 0` of path and person |
| with `bounding_box_train` | Market-1501, DukeMTMC-reID, CUHK03-NP: crops named as in `common.crop_names` |
| with `bbox_train`, `image_train` | MARS, VeRi-776: the same |
| with such crops | whatever it is called; people may have folders of their own |
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np

from cion_jax.common import crop_names
from cion_jax.common.files import read_text, walk
from cion_jax.common.images import SUFFIXES
from cion_jax.common.paths import local_path
from cion_jax.common.printable import some
from cion_jax.data.image_files import FileReader
from cion_jax.data.records import DatasetError, is_data
from cion_jax.data.shards import ShardReader

Protocol = Literal["train", "trainval"]

_LISTS: dict[Protocol, tuple[str, ...]] = {"train": ("list_train.txt",), "trainval": ("list_train.txt", "list_val.txt")}
_MSMT17_FOLDERS = ("train", "mask_train_v2")  # V1, V2
_NAMED_FOLDERS = ("bounding_box_train", "bbox_train", "image_train")
_TEST_FOLDERS = ("query", "gallery", "bounding_box_test", "bbox_test", "image_query", "image_test")


def open_people(path: str | Path, protocol: Protocol = "trainval") -> ShardReader | FileReader:
    """Opens the training images of a folder; says on stderr which files were left out.

    Args:
      path: see above.
      protocol: of MSMT17, which lists are trained on; the numbers that are published are of both.

    Raises:
      DatasetError: no such folder, nothing to train on in it, or a list that does not fit the files.
    """
    folder = local_path(str(path), "config.data.path")
    if not folder.is_dir():
        raise DatasetError(f"config.data.path={path} is no folder; give identity shards or a benchmark as unpacked")
    if is_data(folder):
        return ShardReader.of_intact(folder)
    if is_listed(folder):
        return _reader(*listed(folder, protocol))
    return _named(train_folder(folder))


def train_folder(folder: Path) -> Path:
    """Where in a benchmark's folder the images lie that may be learned from; the folder itself if it is no benchmark's.

    Raises:
      DatasetError: there are test images and none to train on.
    """
    if is_listed(folder):
        return _msmt17(folder)
    inside = next((folder / name for name in _NAMED_FOLDERS if (folder / name).is_dir()), folder)
    tests = [name for name in _TEST_FOLDERS if (inside / name).is_dir()]
    if tests:
        raise DatasetError(
            f"{folder} has test images ({', '.join(tests)}) and no folder {' or '.join(_NAMED_FOLDERS)} to train on; "
            "unpack the benchmark again, or give the folder of its training images"
        )
    return inside


def train_images(folder: Path) -> tuple[Path, list[Path]]:
    """`train_folder`, and the images in it and in the folders below, by their names; DatasetError as of that."""
    inside = train_folder(folder)
    return inside, [file for file in walk(inside) if file.suffix.lower() in SUFFIXES and file.is_file()]


def is_listed(folder: Path) -> bool:
    """Whether lists say what there is, as MSMT17's do."""
    return (folder / _LISTS["train"][0]).is_file()


def _msmt17(folder: Path) -> Path:
    place = next((folder / name for name in _MSMT17_FOLDERS if (folder / name).is_dir()), None)
    if place is None:
        raise DatasetError(f"no folder {' or '.join(_MSMT17_FOLDERS)} in {folder}; expected MSMT17 as unpacked")
    return place


def listed(folder: Path, protocol: Protocol) -> tuple[Path, list[tuple[Path, int]]]:
    """MSMT17's folder of training images, and the files of its lists with who is on them.

    Raises:
      DatasetError: lists and files do not fit.
    """
    place = _msmt17(folder)
    rows = [row for name in _LISTS[protocol] for row in _rows(folder / name)]
    files = [(place / name, person) for name, person in rows]
    missing = [str(file) for file, _ in files if not file.is_file()]
    if missing or not files:
        raise DatasetError(
            f"{len(missing)} of {len(files)} files of {' and '.join(_LISTS[protocol])} are not in {place}: "
            f"{some(missing)}; unpack MSMT17 again"
        )
    return place, files


def _rows(file: Path) -> list[tuple[str, int]]:
    if not file.is_file():
        raise DatasetError(f"no list {file}; unpack MSMT17 again, or give --config.data.protocol=train")
    rows, wrong = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        name, _, person = line.strip().rpartition(" ")
        if name and person.isdecimal():
            rows.append((name, int(person)))
        elif line.strip():
            wrong.append(f"line {number}: {line!r}")
    if wrong:
        raise DatasetError(f"{file} has {len(wrong)} lines that are no path and person: {some(wrong)}")
    return rows


def _named(folder: Path) -> FileReader:
    inside = (path for path in walk(folder, depth=2) if path.suffix.lower() in SUFFIXES and path.is_file())
    said = [(path, crop_names.parse(path.name)) for path in inside]
    files = [(path, name.person) for path, name in said if name and name.known]
    unnamed = [path.name for path, name in said if name is None]
    if not files:
        raise DatasetError(
            f"nobody to train on in {folder}: got {len(said)} images, {len(unnamed)} of them not named like a crop "
            f"({some(unnamed)}), the others junk or distractors; expected identity shards, a benchmark as unpacked, or "
            f"names such as {crop_names.EXAMPLES}"
        )
    if unnamed:
        print(f"{folder}: {len(unnamed)} images left out, not named like a crop: {some(unnamed)}", file=sys.stderr)
    return _reader(folder, files)


def _reader(root: Path, files: list[tuple[Path, int]]) -> FileReader:
    paths, people = zip(*files, strict=True)
    return FileReader(root, paths, np.array(people))

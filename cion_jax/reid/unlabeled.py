"""Images with cameras and tracklets and without people: what `--adapt` learns from.

| DATA | cameras and tracklets |
|---|---|
| identity shards of `python -m data_prep` | of their records; identities are not looked at |
| a benchmark as unpacked, or a folder of such crops | of the training images' names, as `crop_names` reads them |
| any other folder, `CAMERA/TRACKLET/IMAGE` | the last folder is the tracklet, those above it are the camera |
| features in a `.npz` or `.parquet` file | the same two, of the keys |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cion_jax.common import crop_names
from cion_jax.common.errors import UserError
from cion_jax.common.files import read_regular
from cion_jax.data import records
from cion_jax.data.shards import ShardReader
from cion_jax.data.train_split import train_images

MOST = 50_000  # images that are learned from; of more, whole tracklets are drawn, evenly over cameras
_SEED = 0


class UnlabeledError(UserError):
    """Data that does not say which images are of one tracklet, or has none of two images."""


@dataclass(frozen=True)
class Unlabeled:
    """N images.

    Attributes:
      name: of the data, for people.
      keys: N texts, unique: paths of files, or keys of records.
      camera: N names of cameras, or of videos where these are all that is known.
      tracklet: [N] int64.
      read: the bytes of the picture of one of them; raises OSError.
      of: images that there are, of which these were drawn.
    """

    name: str
    keys: Sequence[str]
    camera: Sequence[str]
    tracklet: np.ndarray
    read: Callable[[int], bytes]
    of: int


def opened(path: Path, most: int = MOST) -> Unlabeled:
    """Opens a folder; no picture is decoded.

    Args:
      path: see the table above.
      most: images.

    Raises:
      UnlabeledError, DatasetError: no such folder, nothing to learn from in it, or it is damaged.
    """
    if not path.is_dir():
        raise UnlabeledError(
            f"--adapt={path} is neither a folder of tracklets nor a file; give identity shards, a benchmark as "
            "unpacked, a folder of CAMERA/TRACKLET/IMAGE, a file of features, or what --adapt_output wrote"
        )
    if records.is_data(path):
        return _of_shards(path, most)
    inside, files = train_images(path)
    camera, tracklet = places([file.relative_to(inside).as_posix() for file in files], str(path))
    return _drawn(path.name, [str(file) for file in files], camera, tracklet, lambda i: read_regular(files[i]), most)


def of_keys(name: str, keys: Sequence[str], most: int = MOST) -> Unlabeled:
    """The same of keys alone, as those of a file of features; all of them are taken, and there is nothing to read."""
    camera, tracklet = places(keys, name)

    def read(number: int) -> bytes:
        raise OSError(f"{keys[number]} is a key, not a picture")

    return _drawn(name, keys, camera, tracklet, read, max(most, len(keys)))


def places(keys: Sequence[str], what: str) -> tuple[list[str], np.ndarray]:
    """(N names of cameras, [N] int64 tracklets) that N keys tell.

    Raises:
      UnlabeledError: they tell none.
    """
    names = [crop_names.parse(PurePosixPath(key).name) for key in keys]
    known = [name for name in names if name is not None]
    if known and len(known) == len(names):
        return [camera_name(name.camera) for name in known], crop_names.tracklets(known)
    folders = [PurePosixPath(key).parent for key in keys]
    if not keys or PurePosixPath(".") in folders:
        loose = [key for key, folder in zip(keys, folders, strict=True) if folder == PurePosixPath(".")]
        raise UnlabeledError(
            f"{what}: {len(keys)} images, {len(known)} of them named like a benchmark's crops, {len(loose)} in no "
            f"folder of a tracklet{f' (the first: {loose[0]})' if loose else ''}; expected names such as "
            f"{crop_names.EXAMPLES}, or CAMERA/TRACKLET/IMAGE"
        )
    tracklet = np.unique([str(folder) for folder in folders], return_inverse=True)[1]
    return [str(folder.parent) for folder in folders], tracklet


def camera_name(number: int) -> str:
    """How a camera is called whose number a crop's name says."""
    return f"c{number}"


def cameras_of(keys: Sequence[str], known: Sequence[str]) -> list[str]:
    """Cameras of images by their keys: what the name says, else the nearest folder above that is a known camera.

    An image of neither gets an empty name, which no camera has.
    """
    some = set(known)
    return [_camera_of(PurePosixPath(key), some) for key in keys]


def _camera_of(key: PurePosixPath, known: set[str]) -> str:
    name = crop_names.parse(key.name)
    if name is not None:
        return camera_name(name.camera)
    return next((str(folder) for folder in key.parents if str(folder) in known), "")


def _of_shards(folder: Path, most: int) -> Unlabeled:
    """Records as their provenance has them; a camera that the names of all of them tell is meant, else the video."""
    import pyarrow.compute as pc  # only now: other data do without it
    import pyarrow.parquet as pq

    reader = ShardReader.of_intact(folder)
    path = folder / records.PROVENANCE_FILE
    with records.damage(path):
        table = pq.read_table(path, columns=["record", records.KEY, records.VIDEO, records.TRACKLET])
        table = table.filter(pc.is_valid(table["record"])).sort_by("record")
        columns = {name: table[name].to_pylist() for name in table.column_names}
        if columns.pop("record") != list(range(len(reader))):
            raise ValueError(f"it has {len(table):,} records, the shards {len(reader):,}")
    keys, videos, tracklets = columns.values()
    names = [crop_names.parse(PurePosixPath(key).name) for key in keys]
    camera = videos if None in names else [camera_name(name.camera) for name in names if name is not None]
    order = {each: i for i, each in enumerate(dict.fromkeys(zip(videos, tracklets, strict=True)))}
    tracklet = np.array([order[each] for each in zip(videos, tracklets, strict=True)])

    def read(number: int) -> bytes:
        (record,) = reader.read([number])
        if record is None:
            raise OSError(f"{reader.where(number)} is damaged; cion-verify looks at all of them")
        return record[records.IMAGE]

    return _drawn(folder.name, keys, camera, tracklet, read, most)


def _drawn(
    name: str,
    keys: Sequence[str],
    camera: Sequence[str],
    tracklet: np.ndarray,
    read: Callable[[int], bytes],
    most: int,
) -> Unlabeled:
    """At most `most` images, in whole tracklets: one of every camera, then a second one, in random order."""
    size = np.bincount(tracklet)
    if not (size > 1).any():
        raise UnlabeledError(
            f"{name}: no tracklet has two images, of {len(keys)}; what varies within tracklets is learned from those "
            "that have"
        )
    rows = np.arange(len(keys))
    if len(keys) > most:
        rows = np.flatnonzero(_some(np.asarray(camera), tracklet, size, most)[tracklet])
    chosen = rows.tolist()
    taken = np.unique(tracklet[rows], return_inverse=True)[1]
    some = [keys[i] for i in chosen], [camera[i] for i in chosen]
    return Unlabeled(name, *some, taken, lambda i: read(chosen[i]), len(keys))


def _some(camera: np.ndarray, tracklet: np.ndarray, size: np.ndarray, most: int) -> np.ndarray:
    """[T] bool, which tracklets are drawn."""
    first = np.unique(tracklet, return_index=True)[1]
    mixed = np.random.default_rng(_SEED).permutation(len(size))
    seen: Counter[str] = Counter()
    rank = np.zeros(len(size), np.int64)
    for number in mixed:
        rank[number] = seen[camera[first[number]]]
        seen[camera[first[number]]] += 1
    order = mixed[np.argsort(rank[mixed], kind="stable")]
    taken = np.zeros(len(size), bool)
    taken[order[: max(int(np.searchsorted(np.cumsum(size[order]), most, "right")), 1)]] = True
    return taken

"""LUPerson and LUPerson-NL as their authors' scripts write them: an LMDB of JPEGs and `keys.pkl`.

Layout: https://github.com/DengpanFu/LUPerson (LUP/convert_lmdb.py), https://github.com/DengpanFu/LUPerson-NL.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.common import images
from cion_jax.common.extras import needed
from cion_jax.common.files import read_regular
from cion_jax.common.pickles import Machine, PickleError, kind_of
from data_prep.sources import REGISTRY
from data_prep.sources.pictures import Pictures
from data_prep.types import Image, Reject, SourceError

_DATA, _KEYS = "data.mdb", "keys.pkl"
_VIDEO_PARTS = 3  # country, city, video of LUPerson's keys, as in 03_01_0007_00000012


class _Crop(NamedTuple):
    video: str
    tracklet: str
    key: str


@REGISTRY.add("luperson")
class LUPerson(Pictures):
    """An LMDB of crops.

    LUPerson's keys say country, city, video and number: nothing says which crops belong together, so each is a tracklet
    of its own. LUPerson-NL's `keys.pkl` is a dict whose `pids` say what its tracker took for one person: within a video
    that is a tracklet; `vids`, where there are any, are the videos. Without `keys.pkl` the keys of the LMDB are taken.
    """

    layout = "keys.pkl beside the folder of an LMDB, or that folder itself"

    def __init__(self, root: Path):
        """Reads the keys; `root` holds `keys.pkl` beside the folder of the LMDB, or is that folder."""
        super().__init__(root)
        self._database = _find(root)
        self.container = self._database / _DATA
        self._videos: dict[str, list[_Crop]] = {}
        for crop in _crops(root, self._database):
            self._videos.setdefault(crop.video, []).append(crop)
        if not self._videos:
            raise SourceError(f"{self._database} has no crop; expected keys like 03_01_0007_00000012")

    def videos(self) -> list[str]:
        """Sorted keys of the videos."""
        return sorted(self._videos)

    def read(self, video: str) -> tuple[list[Image], list[Reject]]:
        """All crops of one video; a key of which the LMDB has nothing shows when its crop is read."""
        found = [Image(f"{video}/{c.tracklet}/{c.key}", video, c.tracklet, -1, c.key) for c in self._videos[video]]
        return sorted(found, key=lambda image: (image.tracklet, image.key)), []

    def crops(self, images_: Sequence[Image]) -> Iterator[tuple[Image, np.ndarray | Reject]]:
        """Decoded crops in the order given."""
        for image in images_:
            data = _get(self._database, image.path)
            try:
                yield image, images.decode(data or b"")
            except images.PictureError as error:
                yield image, Reject("unreadable image", image.key, f"{self._database}, key {image.path!r}: {error}")

    def jpeg(self, image: Image) -> bytes | None:
        """The stored bytes where they are a JPEG, else None."""
        data = _get(self._database, image.path)
        return data if data is not None and images.is_jpeg(data) else None


def _find(root: Path) -> Path:
    """The folder of the LMDB."""
    places = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())] if root.is_dir() else []
    found = [place for place in places if (place / _DATA).is_file()]
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise SourceError(f"expected one folder with {_DATA} in {root}, got {names}; give the folder that has {_KEYS}")
    return found[0]


def _crops(root: Path, database: Path) -> Iterator[_Crop]:
    path = next((place / _KEYS for place in (root, database.parent) if (place / _KEYS).is_file()), None)
    found = {"keys": _all_keys(database)} if path is None else _plain(path)
    keys, pids, vids = found["keys"], found.get("pids"), found.get("vids")
    for name, values in (("pids", pids), ("vids", vids)):
        if values is not None and len(values) != len(keys):
            raise SourceError(f"{path} has {len(values)} {name} for {len(keys)} keys; expected one each")
    for i, key in enumerate(keys):
        parts = key.split("_")
        video = str(vids[i]) if vids is not None else "_".join(parts[: _VIDEO_PARTS if pids is None else 1])
        yield _Crop(video, key if pids is None else str(pids[i]), key)


def _plain(path: Path) -> dict[str, list]:
    """`keys.pkl`: a list of keys, or a dict of lists; raises SourceError."""
    data = read_regular(path)
    try:
        # An operation takes a byte at least: however many crops the data set has, no file asks for more than it is.
        found = Machine({}, _refused, operations=len(data) + 1).run(io.BytesIO(data))
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise SourceError(f"{path}: {error}; expected a pickle of a list of keys, or of keys and pids") from error
    found = {"keys": found} if isinstance(found, list) else found
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise SourceError(f"{path}: got {kind_of(found)}, expected a list of keys or a dict with keys and pids")
    if not all(isinstance(key, str) and key for key in found["keys"]):
        raise SourceError(f"{path}: not all keys are texts; expected keys like 03_01_0007_00000012")
    lists = {name: found[name] for name in ("keys", "pids", "vids") if isinstance(found.get(name), list)}
    for name, values in lists.items():
        if strange := next((value for value in values if not isinstance(value, str | int)), None):
            raise SourceError(f"{path}: it has {kind_of(strange)} among its {name}, expected texts or whole numbers")
    return lists


def _refused(_: Any) -> Any:
    raise PickleError("it refers to something outside of it")


def _all_keys(database: Path) -> list[str]:
    with _open(str(database)).begin() as transaction:
        return [bytes(key).decode("ascii", "replace") for key in transaction.cursor().iternext(values=False)]


@functools.lru_cache(maxsize=8)  # one process may open an LMDB once only
def _open(database: str) -> Any:
    with needed("--source=luperson", "prep"):
        import lmdb
    try:
        return lmdb.open(database, readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise SourceError(f"{database}: {error}; expected an LMDB that can be read") from error


def _get(database: Path, key: str) -> bytes | None:
    with _open(str(database)).begin() as transaction:
        return transaction.get(key.encode("ascii", "replace"))

"""A folder of crops and features that runs with other outputs share, by the stamp of what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from cion_jax.common.files import finished
from data_prep.pipeline.inputs import Stamp
from data_prep.pipeline.workdir import Work, whole

_KINDS = (
    "rejected",
    "crops",
    "npy",
    "boxes",
    "arrow",
)  # in the order in which they are written: the last one says it is all


class Cache:
    """Files of videos by their stamps; any number of runs may use it at once."""

    def __init__(self, folder: Path):
        """Takes the folder, which may be new."""
        self._folder = folder

    def fetch(self, stamp: Stamp, work: Work) -> bool:
        """Puts the files of a video into a work folder; returns whether they are known."""
        files = {kind: self._file(stamp, kind) for kind in _KINDS}
        if not (files["arrow"].exists() and whole(files["arrow"]) and whole(files["npy"])):
            return False
        for kind, path in files.items():
            if path.exists():
                _link(path, work.file(stamp["video"], kind))
        return True

    def store(self, stamp: Stamp, work: Work) -> None:
        """Remembers the files of a video."""
        for kind in _KINDS:
            path, place = work.file(stamp["video"], kind), self._file(stamp, kind)
            if path.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                _link(path, place)

    def _file(self, stamp: Stamp, kind: str) -> Path:
        key = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.{kind}"


def _link(source: Path, target: Path) -> None:
    """A second name of a file, or where the file system has none a copy; files are replaced, never written into."""
    with finished(target) as part:
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)

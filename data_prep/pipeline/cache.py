"""A folder of crops and features that runs with other outputs share, by the stamp of what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from cion_jax.common import checksums
from cion_jax.common.files import finished
from cion_jax.common.printable import lines
from data_prep.pipeline.inputs import Stamp
from data_prep.pipeline.workdir import Work, whole

_KINDS = (
    "rejected",
    "crops",
    "npy",
    "boxes",
    "arrow",
)  # in the order in which they are written: the last one says it is all
_SUMS = "sha256"  # of these files


class Cache:
    """Files of videos by their stamps; any number of runs may use it at once."""

    def __init__(self, folder: Path):
        """Takes the folder, which may be new."""
        self._folder = folder

    def fetch(self, stamp: Stamp, work: Work) -> bool:
        """Puts the files of a video into a work folder; returns whether they are known, and what was stored."""
        files = {kind: self._file(stamp, kind) for kind in _KINDS}
        if not (files["arrow"].exists() and whole(files["arrow"]) and whole(files["npy"])):
            return False
        for line in (wrong := checksums.damage(self._file(stamp, _SUMS))):
            print(f"{lines(line)}: it is made anew", file=sys.stderr)
        if wrong:
            return False
        for kind, path in files.items():
            if path.exists():
                _link(path, work.file(stamp["video"], kind))
        return True

    def store(self, stamp: Stamp, work: Work) -> None:
        """Remembers the files of a video, and their digests."""
        files = {self._file(stamp, kind): work.file(stamp["video"], kind) for kind in _KINDS}
        files = {place: path for place, path in files.items() if path.exists()}
        sums = self._file(stamp, _SUMS)
        sums.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".part", dir=sums.parent
        ) as unfinished:  # another run may store the same
            checksums.write(Path(unfinished, sums.name), {place.name: path for place, path in files.items()})
            for place, path in files.items():
                _link(path, Path(unfinished, place.name))
            for place in (sums, *files):
                Path(unfinished, place.name).replace(place)

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

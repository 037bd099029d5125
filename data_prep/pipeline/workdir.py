"""The work folder: one set of files per video, each complete or absent, so that a run can stop at any moment."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import urllib.parse
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.common import checksums, lock
from cion_jax.common.errors import UserError
from cion_jax.common.files import write_text
from cion_jax.common.printable import lines
from cion_jax.data import records
from data_prep.output.dataset import read_metrics
from data_prep.types import is_text

_NOT_ASKED = (records.DATASET_NAME, records.CARD_FILE)  # shards may take hours to read, people write into the card
_ARROW_END = b"ARROW1"
_RECORD = ".json"  # of the run itself; no file of a video is called so
_LONGEST = 150  # characters of a file name before it is cut; file systems allow 255 bytes


class OutputError(UserError):
    """The output folder holds something else."""


class InputChangedError(OutputError):
    """A finished data set is of an input that has changed since.

    Attributes:
      changes: what has changed, in words.
    """

    def __init__(self, output: Path, changes: str):
        super().__init__(
            f"{output} is finished, and its input has changed since: {changes}; give another --output, or --update to "
            "write this one again (what has not changed is not done again)"
        )
        self.changes = changes


class Work:
    """Names of the files below ``OUT/work``.

    Per video: ``.input`` (JSON: what it was made of, see `pipeline.inputs`), ``.arrow`` (references), ``.npy``
    (features), ``.boxes`` (npz, where and when anybody was seen, also in images that are not kept; where frames are
    times), ``.met`` (npz, images of two people by these), ``.crops`` (encoded crops, where the source has no files of
    its own), ``.rejected`` (JSON lines), ``.levels`` or ``.sub_tracklets`` (npz, what the denoising method keeps),
    ``.failed`` (why a stage gave up).
    """

    def __init__(self, output: Path):
        self.output = output
        self.folder = output / "work"

    def file(self, video: str, kind: str) -> Path:
        """Where the `kind` file of a video lies; any video key gives a name of its own that is safe."""
        name = urllib.parse.quote(video, safe=" ")
        if len(name) > _LONGEST:
            name = f"{name[:_LONGEST]}~{hashlib.sha256(video.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"
        return self.folder / f"{name}.{kind}"

    def features(self, video: str) -> np.ndarray:
        """[m, d] features of a video, memory-mapped: they are read when they are used."""
        return np.load(self.file(video, "npy"), mmap_mode="r")

    def shape(self, video: str) -> tuple[int, int]:
        """How many images a video has, and how many features each; reads no features."""
        return np.load(self.file(video, "npy"), mmap_mode="r").shape

    def holds(self, video: str, kind: str) -> bool:
        """Whether a stage has left its `kind` file.

        One that is cut short, as by a loss of power, is removed, and so is what a stage made of nothing: another try
        may find something.
        """
        path, rows, boxes = (self.file(video, name) for name in (kind, "npy", "boxes"))
        if not path.exists():
            return False
        good = whole(path) and (not boxes.exists() or whole(boxes))
        good = good and (kind != "arrow" or (whole(rows) and len(np.load(rows, mmap_mode="r")) > 0))
        if not good:
            path.unlink()
        return good

    def forget(self, videos: Iterable[str]) -> None:
        """Removes everything that was made of these videos, and the claim that the data set is finished."""
        for name in (records.METRICS_FILE, checksums.SUMS):
            (self.output / name).unlink(missing_ok=True)
        gone = {self.file(video, "arrow").stem for video in videos}
        for name in gone:  # first what says that the others are complete
            (self.folder / f"{name}.arrow").unlink(missing_ok=True)
        for path in self.folder.iterdir() if gone else ():
            if path.stem in gone and path.suffix != _RECORD:
                path.unlink()

    def made_with(self, kind: str, settings: Mapping[str, Any]) -> bool:
        """Whether the `kind` files were made with these settings (JSON types); from now on they are said to be."""
        record, text = self.folder / f"{kind}{_RECORD}", json.dumps(settings, indent=1, sort_keys=True) + "\n"
        if record.is_file() and record.read_text() == text:
            return True
        write_text(record, text)
        return False

    def claim(self, settings: Mapping[str, Any], update: bool = False) -> bool:
        """Takes the output folder for a run with these settings (JSON types).

        Args:
          settings: of the run.
          update: whether a run with other settings may be replaced.

        Returns:
          True where a run with the same settings has finished there; an unfinished one is continued.

        Raises:
          OutputError: the folder holds something else, or a run with other settings.
        """
        record = self.folder / "run.json"
        if not is_text(str(self.output)):
            raise OutputError(f"the name of --output={self.output!s} is no text in UTF-8; give another one")
        if record.is_file():
            if not whole(record):
                raise OutputError(f"{record} is damaged: what it was made with is not known; delete {self.output}")
            before = json.loads(record.read_text())
            if not isinstance(before, dict):
                raise OutputError(f"{record} is damaged: it holds no settings; delete {self.output}")
            changed = _differences(before, settings)
            if not changed:
                return self._finished()
            if not update:
                raise OutputError(
                    f"{self.output} holds a run with other settings ({', '.join(changed)}); give another --output, the "
                    "same settings to continue, or --update to write it again"
                )
            self.forget([])
        elif self.output.exists() and (not self.output.is_dir() or any(_others(self.output))):
            raise OutputError(
                f"{self.output} is not empty and holds no unfinished run of data_prep; "
                "give a new folder as --output, or empty this one"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(record, json.dumps(settings, indent=1, sort_keys=True) + "\n")
        return False

    def _finished(self) -> bool:
        """Whether the last file is there; where a file is damaged all are written again, of work that is kept."""
        metrics, sums = self.output / records.METRICS_FILE, self.output / checksums.SUMS
        if not metrics.is_file() and not sums.exists():
            return False
        try:
            read_metrics(metrics)
            wrong = checksums.damage(sums, skip=_NOT_ASKED)
        except records.DatasetError as error:
            wrong = [str(error)]
        for line in wrong:
            print(f"{lines(line)}: that is done now", file=sys.stderr)
        if wrong:
            (self.output / records.INFO_FILE).unlink(missing_ok=True)
            self.forget([])
        return not wrong

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other runs out of the output folder, which is made; raises InUseError where one works there."""
        new = not self.output.exists()
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise OutputError(f"{self.output} is a file; give a new folder as --output") from error
        try:
            with lock.held(self.output, "a run of data_prep"):
                yield
        finally:
            if new and not any(self.output.iterdir()):
                self.output.rmdir()


def whole(path: Path) -> bool:
    """Whether a file is there and not cut short, judged by its ends alone."""
    try:
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r")
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".arrow":
            with path.open("rb") as file:
                file.seek(-len(_ARROW_END), os.SEEK_END)
                return file.read() == _ARROW_END
        else:
            return zipfile.is_zipfile(path)
    except (OSError, ValueError, EOFError):
        return False
    return True


def _others(output: Path) -> Iterator[Path]:
    """What lies in the folder besides a work folder that was just being made."""
    for path in output.iterdir():
        if path.name.startswith(".lock"):
            continue
        if path.name != "work" or not path.is_dir() or any(p.name != ".run.json.part" for p in path.iterdir()):
            yield path


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = dict(flat(old)), dict(flat(new))
    names = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name)!r} there, {after.get(name)!r} now" for name in names]


def flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value

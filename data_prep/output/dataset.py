"""A finished data set: what was measured, where every image comes from, what an identity looks like."""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cion_jax.common import contact_sheet, images
from cion_jax.common.files import read_regular
from cion_jax.data import records
from cion_jax.data.records import DatasetError
from cion_jax.data.shards import ShardReader
from data_prep.denoise.method import METHODS
from data_prep.output.provenance import PROVENANCE

_CANDIDATES = 2000  # keys among which the nearest of an unknown one is looked for

# What every run has, and of which type.
_METRICS = {"levels": list, "thresholds": dict, "selection": dict, "rejected": dict}

Decided = Mapping[str, tuple[str, float]]
Row = Mapping[str, Any]
"""One row of the provenance; see `output.provenance.PROVENANCE`."""


class Picture(np.ndarray):
    """[h, w, 3] uint8 RGB that a notebook shows as a picture."""

    def __repr__(self) -> str:
        return f"<picture, {' x '.join(map(str, self.shape))}>"

    def _repr_png_(self) -> bytes:
        _, data = cv2.imencode(".png", cv2.cvtColor(np.asarray(self), cv2.COLOR_RGB2BGR))
        return data.tobytes()


class Dataset:
    """A folder that data_prep has finished.

    Attributes:
      path: the folder.
      metrics: the content of ``metrics.json``: counts, noise and scores per level, selection, settings.
      decided: by level ("level1", "level2"), name and value of the threshold that decided there; empty where the
        folder does not say by which method it was made.
    """

    def __init__(self, path: str | Path):
        """Opens the folder; raises DatasetError where it is no finished data set."""
        self.path = Path(path)
        missing = [name for name in (records.PROVENANCE_FILE, records.METRICS_FILE) if not (self.path / name).is_file()]
        if missing:
            raise DatasetError(f"{path} has no {missing[0]}; expected a folder that data_prep has finished")
        self._file = self.path / records.PROVENANCE_FILE
        self.metrics: dict[str, Any] = read_metrics(self.path / records.METRICS_FILE)
        with records.damage(self._file):
            schema = pq.read_schema(self._file)
            if lacking := [name for name in PROVENANCE.names if name not in schema.names]:
                raise ValueError(f"it has no {lacking[0]}")
        thresholds = self.metrics["thresholds"]
        decides = METHODS[self.metrics["method"]].decides if "method" in self.metrics else {}
        self.decided = {level: (name, thresholds[name]) for level, name in decides.items() if name in thresholds}

    def __repr__(self) -> str:
        selection = self.metrics["selection"]
        return f"<{self.path}: {selection['images']:,} images of {selection['identities']:,} identities>"

    def _repr_html_(self) -> str:
        """A notebook shows the levels: what each one left, as a table and, where there are several, as a chart."""
        from data_prep.output.report import levels  # only now: it takes Matplotlib

        return levels.fragment(self.metrics)

    @functools.cached_property
    def provenance(self) -> pa.Table:
        """One row per image that was read, of the schema `output.provenance.PROVENANCE`."""
        return self._read()

    def show(self, identity: int) -> Picture:
        """What was written of an identity, its tracklets side by side; a notebook displays it.

        Returns:
          [h, w, 3] uint8 RGB.

        Raises:
          DatasetError: there is no such identity, or none of its images were selected.
        """
        picture = self.picture(self.identity(identity), None)
        if picture is None:
            raise DatasetError(f"none of the images of identity {identity} were selected: there is nothing to show")
        return picture

    def images(self, identity: int) -> dict[str, np.ndarray]:
        """What was written of an identity: its images by key, [h, w, 3] uint8 RGB; those that are damaged are left out.

        Raises:
          DatasetError: there is no such identity.
        """
        written = {row["key"]: row["record"] for row in self.identity(identity) if row["record"] is not None}
        found = {}
        for key, record in zip(written, ShardReader(self.path).read(list(written.values())), strict=True):
            with contextlib.suppress(images.PictureError):
                found[key] = images.decode(record[records.IMAGE] if record else b"")
        return found

    def image(self, key: str) -> Row:
        """The provenance of one image; raises DatasetError with the nearest keys where there is none."""
        rows = self._rows("key", key)
        if not rows:
            near = _nearest(key, self._read(columns=["key"])["key"])
            raise DatasetError(f"no image {key!r} in {self.path}; the nearest keys are {', '.join(map(repr, near))}")
        return rows[0]

    def identity(self, number: int) -> list[Row]:
        """The provenance of all images of an identity; raises DatasetError where there is none."""
        rows = self._rows("identity", number)
        if not rows:
            last = pc.max(self._read(columns=["identity"])["identity"]).as_py()
            raise DatasetError(f"no identity {number} in {self.path}; expected a number of 0 .. {last}")
        return rows

    def picture(self, rows: Sequence[Row], marked: int | None) -> Picture | None:
        """What was written of an identity's rows, as `show` has it; record `marked` framed. None: nothing was."""
        written = [row for row in rows if row["record"] is not None]
        if not written:
            return None
        reader = ShardReader(self.path)
        sheet = contact_sheet.sheet(
            [[(row["record"], row["record"] == marked) for row in some] for _, some in by_tracklet(written)],
            lambda numbers: [None if r is None else r[records.IMAGE] for r in reader.read(numbers)],
        )
        return sheet.view(Picture)

    def _rows(self, column: str, value: str | int) -> list[Row]:
        return self._read(filters=[(column, "==", value)]).to_pylist()

    def _read(self, **what: Any) -> pa.Table:
        with records.damage(self._file):
            return pq.read_table(self._file, page_checksum_verification=True, **what)


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of ``metrics.json``; raises DatasetError where it is not what a run writes."""
    with records.damage(path):
        metrics = json.loads(read_regular(path))
        for name, kind in _METRICS.items():
            if not isinstance(metrics[name], kind):
                raise TypeError(f"{name} is {type(metrics[name]).__name__}")
        numbers = [*metrics["thresholds"].values(), *metrics["rejected"].values()]
        numbers += [metrics["selection"][name] for name in ("images", "identities")]
        numbers += [level[name] for level in metrics["levels"] for name in ("images", "identities")]
        if not all(isinstance(number, int | float) for number in numbers):
            raise TypeError("a count or threshold is no number")
        if metrics.get("method", next(iter(METHODS))) not in METHODS:
            raise ValueError(f"there is no method {metrics['method']!r}")
    return metrics


def by_tracklet(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """Rows by the video and tracklet that they belong to after level 2."""

    def name(row: Row) -> tuple[str, str]:
        return row["video"], row["level2_tracklet"] or row["tracklet"]

    for tracklet, some in itertools.groupby(sorted(rows, key=lambda row: (name(row), row["frame"])), name):
        yield tracklet, list(some)


def _nearest(key: str, keys: pa.ChunkedArray) -> list[str]:
    """Up to three keys like this one: of those that begin alike, else of an even sample."""
    for length in range(len(key), -1, -1):
        some = keys.filter(pc.starts_with(keys, key[:length])) if length else keys
        if len(some):
            break
    at = np.unique(np.linspace(0, len(some) - 1, _CANDIDATES).astype(int))
    return difflib.get_close_matches(key, some.take(pa.array(at)).to_pylist(), n=3, cutoff=0.0)

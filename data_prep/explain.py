"""Where an image or an identity of a finished data set comes from, and what every level did to it.

    python -m data_prep.explain --dataset=OUT --image=KEY
    python -m data_prep.explain --dataset=OUT --identity=ID [--picture=FILE.png]

The picture shows the identity as it was written, its tracklets side by side. Both need the data set's folder only.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from absl import flags

from cion_jax.common import cli, contact_sheet
from cion_jax.common.errors import UserError
from cion_jax.data import records
from cion_jax.data.shards import ShardReader
from data_prep.denoise.method import METHODS
from data_prep.output.provenance import DISCARDED, KEPT, MOVED

_CANDIDATES = 2000  # keys among which the nearest of an unknown one is looked for
_DATASET = flags.DEFINE_string("dataset", None, "Folder that data_prep wrote.", required=True)
_IMAGE = flags.DEFINE_string("image", None, "Key of an image, as provenance.parquet and the records have it.")
_IDENTITY = flags.DEFINE_integer("identity", None, "Number of an identity.")
_PICTURE = flags.DEFINE_string("picture", None, "PNG to write; identity_ID.png in this folder unless given.")

Row = Mapping[str, Any]
Decided = Mapping[str, tuple[str, float]]


class ExplainError(UserError):
    """There is no such data set, image or identity."""


def main(_: Sequence[str]) -> None:
    """Prints what the flags ask for, and writes the picture."""
    if (_IMAGE.value is None) == (_IDENTITY.value is None):
        raise ExplainError("give one of --image=KEY and --identity=ID")
    dataset = Dataset(Path(_DATASET.value))
    if _IMAGE.value is not None:
        row = dataset.image(_IMAGE.value)
        print("\n".join(of_image(row, dataset.decided)))
        identity = row["identity"]
    else:
        identity = _IDENTITY.value
    if identity is None:
        return
    rows = dataset.identity(identity)
    print("\n".join(of_identity(identity, rows)))
    marked = None if _IMAGE.value is None else row["record"]
    picture = dataset.picture(rows, marked)
    if picture is None:
        print("none of its images were selected: there is nothing to show")
        return
    path = Path(_PICTURE.value or f"identity_{identity}.png")
    contact_sheet.save(path, picture)
    print(f"picture: {path}")


class Dataset:
    """A finished data set.

    Attributes:
      decided: by level ("level1", "level2"), name and value of the threshold that decided there; empty where the
        folder does not say by which method it was made.
    """

    def __init__(self, folder: Path):
        """Opens the folder; raises ExplainError where it is no finished data set."""
        missing = [name for name in (records.PROVENANCE_FILE, records.METRICS_FILE) if not (folder / name).is_file()]
        if missing:
            raise ExplainError(f"{folder} has no {missing[0]}; expected a folder that data_prep has finished")
        self.folder = folder
        self._provenance = folder / records.PROVENANCE_FILE
        metrics = json.loads((folder / records.METRICS_FILE).read_text())
        decides = METHODS[metrics["method"]].decides if "method" in metrics else {}
        thresholds = metrics["thresholds"]
        self.decided = {level: (name, thresholds[name]) for level, name in decides.items() if name in thresholds}

    def image(self, key: str) -> Row:
        """The provenance of one image; raises ExplainError with the nearest keys where there is none."""
        rows = self._rows("key", key)
        if not rows:
            near = _nearest(key, pq.read_table(self._provenance, columns=["key"])["key"])
            raise ExplainError(f"no image {key!r} in {self.folder}; the nearest keys are {', '.join(map(repr, near))}")
        return rows[0]

    def identity(self, number: int) -> list[Row]:
        """The provenance of all images of an identity; raises ExplainError where there is none."""
        rows = self._rows("identity", number)
        if not rows:
            last = pc.max(pq.read_table(self._provenance, columns=["identity"])["identity"]).as_py()
            raise ExplainError(f"no identity {number} in {self.folder}; expected a number of 0 .. {last}")
        return rows

    def picture(self, rows: Sequence[Row], marked: int | None) -> np.ndarray | None:
        """[h, w, 3] uint8 RGB of what was written of an identity; record `marked` framed. None: nothing was."""
        written = [row for row in rows if row["record"] is not None]
        if not written:
            return None
        reader = ShardReader(self.folder)
        return contact_sheet.sheet(
            [[(row["record"], row["record"] == marked) for row in some] for _, some in _by_tracklet(written)],
            lambda numbers: [None if r is None else r[records.IMAGE] for r in reader.read(numbers)],
        )

    def _rows(self, column: str, value: str | int) -> list[Row]:
        return pq.read_table(self._provenance, filters=[(column, "==", value)]).to_pylist()


def of_image(row: Row, decided: Decided) -> Iterator[str]:
    """What is known of one image, line by line."""
    box = "" if row["box"] is None else f", box {', '.join(f'{side:g}' for side in row['box'])}"
    truth = {None: "", -1: ", truth: nobody"}.get(row["truth"], f", truth: {row['truth']}")
    yield row["key"]
    yield f"  from: {row['path']}, video {row['video']}, tracklet {row['tracklet']}, frame {row['frame']}{box}{truth}"
    if row["level2_action"] is not None:
        yield f"  level 1: {_level1(row, decided)}"
        yield f"  level 2: {_level2(row, decided)}"
        yield f"  level 3: {_level3(row)}"
    if row["record"] is not None:
        yield f"  written: record {row['record']}"
    else:
        yield "  not written: " + ("no identity" if row["identity"] is None else "left out by the selection")


def of_identity(number: int, rows: Sequence[Row]) -> Iterator[str]:
    """What is known of one identity, a line for every tracklet in it; those written have their column's number."""
    written = sum(row["selected"] for row in rows)
    videos = len({row["video"] for row in rows})
    yield f"identity {number}: {_count(len(rows), 'image')} of {_count(videos, 'video')}, {written:,} written"
    column = itertools.count(1)
    for (video, tracklet), some in _by_tracklet(rows):
        place = f"[{next(column)}]" if any(row["selected"] for row in some) else "[-]"
        yield f"  {place} {video} / {tracklet}: {', '.join(_facts(some))}"


def _facts(rows: Sequence[Row]) -> Iterator[str]:
    """What is known of the images of one tracklet in an identity."""
    yield _count(len(rows), "image")
    if came := sum(row["level2_action"] == MOVED for row in rows):
        yield f"{came:,} from other tracklets"
    if (far := rows[0]["level2_joined"]) is not None:
        yield f"{far:.3f} from the nearest other tracklet of its video"
    if (far := rows[0]["level3_joined"]) is not None:
        yield f"{far:.3f} from the nearest that level 3 joined"
    if distances := [row["distance"] for row in rows if row["distance"] is not None]:
        yield f"up to {max(distances):.3f} from the centroid"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _level1(row: Row, decided: Decided) -> str:
    far = f"{_far(row['level1_distance'])} from the mean of the others"
    if not row["level1_round"]:
        return "the only image of its tracklet" if row["level1_distance"] is None else f"stayed, {far}"
    return f"left tracklet {row['tracklet']} in round {row['level1_round']}, {far}{_threshold(decided, 'level1')}"


def _level2(row: Row, decided: Decided) -> str:
    nearest = f"{_far(row['level2_distance'])} away"
    done = {
        KEPT: f"kept in tracklet {row['level2_tracklet']}",
        MOVED: f"moved to tracklet {row['level2_tracklet']}, {nearest}",
        DISCARDED: f"discarded, the nearest other tracklet is {nearest}",
    }[row["level2_action"]]
    if row["level2_identity"] is None:
        return done
    if row["level2_joined"] is None:
        return f"{done}; joined no other tracklet of the video"
    joined = f"joined another tracklet of the video {_far(row['level2_joined'])} away"
    return f"{done}; {joined}{_threshold(decided, 'level2')}"


def _level3(row: Row) -> str:
    if row["identity"] is None:
        return "no identity"
    joined = "joined no other video"
    if row["level3_joined"] is not None:
        joined = f"joined what is {_far(row['level3_joined'])} away"
    return f"identity {row['identity']}, {_far(row['distance'])} from its centroid; {joined}"


def _threshold(decided: Decided, level: str) -> str:
    if level not in decided:
        return ""
    name, value = decided[level]
    return f" ({name} {value:.3f})"


def _far(distance: float | None) -> str:
    return "none" if distance is None else f"{distance:.3f}"


def _by_tracklet(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """Rows by the tracklet that they belong to after level 2."""

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


if __name__ == "__main__":
    cli.run(main)

"""Where an image or an identity of a finished data set comes from, and what every level did to it.

    python -m data_prep.explain --dataset=OUT --image=KEY
    python -m data_prep.explain --dataset=OUT --identity=ID [--picture=FILE.png]

The picture shows the identity as it was written, its tracklets side by side. Both need the data set's folder only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from cion_jax.common import cli, contact_sheet
from cion_jax.common.bounds import between
from cion_jax.common.errors import UserError
from cion_jax.common.files import replaceable
from cion_jax.common.paths import local_path
from data_prep.output.dataset import Dataset, Decided, Row, by_tracklet
from data_prep.output.provenance import DISCARDED, KEPT, MOVED


class ExplainError(UserError):
    """What is asked for cannot be told."""


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("dataset", None, "Folder that data_prep wrote.", required=True)
    flags.DEFINE_string("image", None, "Key of an image, as provenance.parquet and the records have it.")
    cli.define_number("identity", None, "Number of an identity.", between(0, 2**62))
    flags.DEFINE_string("picture", None, "PNG to write; identity_ID.png in this folder unless given.")
    flags.DEFINE_bool("overwrite", False, "Replaces a --picture that is there already.")


def main(_: Sequence[str]) -> None:
    """Prints what the flags ask for, and writes the picture."""
    given = flags.FLAGS
    if (given.image is None) == (given.identity is None):
        raise ExplainError("give one of --image=KEY and --identity=ID")
    dataset = Dataset(local_path(given.dataset, "--dataset"))
    asked = given.picture and _place(given.picture, dataset.path, given.overwrite)
    row = None if given.image is None else dataset.image(given.image)
    if row is not None:
        print("\n".join(of_image(row, dataset.decided)))
    identity = given.identity if row is None else row["identity"]
    if identity is None:
        return
    rows = dataset.identity(identity)
    print("\n".join(of_identity(identity, rows)))
    picture = dataset.picture(rows, None if row is None else row["record"])
    if picture is None:
        print("none of its images were selected: there is nothing to show")
        return
    path = asked or _place(f"identity_{identity}.png", dataset.path, overwrite=True)
    contact_sheet.save(path, picture)
    print(f"picture: {path}")


def run_main() -> None:
    """The command `data_prep.explain`; never returns."""
    define_flags()
    cli.run(main)


def _place(name: str, dataset: Path, overwrite: bool) -> Path:
    """Where the picture goes; raises UserError where that would replace something else."""
    path = local_path(name, "--picture")
    if path.suffix.lower() != ".png" or path.resolve().is_relative_to(dataset.resolve()):
        raise ExplainError(f"--picture={path}: expected the name of a .png outside of the data set")
    return replaceable(path, "--picture", overwrite)


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
    for (video, tracklet), some in by_tracklet(rows):
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


if __name__ == "__main__":
    run_main()

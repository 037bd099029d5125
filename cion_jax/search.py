"""Finds people in a gallery of features.

    python -m cion_jax.embed --checkpoint=RUN --input=GALLERY --output=features.npz
    python -m cion_jax.search --index=features.npz --query=DIR|IMAGE --checkpoint=RUN --top=20
    python -m cion_jax.search --index=features.parquet --query=queries.npz --fpr=1e-3 --scores=score.json

Prints a table; `--output=FILE.json` writes the same, `--sheet=FILE.png` draws it (the first of a row is the query).
A threshold keeps what is nearer: given as a cosine distance, or as the false positive rate that it had on a benchmark
(`--scores`, what `cion_jax.evaluate --output` wrote, of the same checkpoint). Exact up to a million rows, ScaNN above.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from cion_jax.common import cli, contact_sheet, images
from cion_jax.common.bounds import SHARE, between
from cion_jax.common.files import read_regular, replaceable, walk, write_text
from cion_jax.common.paths import local_path
from cion_jax.common.printable import printable
from cion_jax.common.typed_config import ConfigError
from cion_jax.embed import (
    adapt,
    adaptation_of_flags,
    define_adapt_flags,
    define_extractor_flags,
    define_overwrite,
    embed_files,
    extractor_of_flags,
    list_unreadable,
)
from cion_jax.reid import feature_file, unlabeled
from cion_jax.reid import index as indexes
from cion_jax.reid.feature_file import FeatureFile


def main(_: Sequence[str]) -> None:
    """Answers every query."""
    args = flags.FLAGS
    file, query = local_path(args.index, "--index"), local_path(args.query, "--query")
    about = feature_file.about(file)
    adapted = about.get("adapt")
    threshold = _threshold(args.threshold, args.fpr, args.scores, about)
    given = {"--output": args.output, "--sheet": args.sheet}
    outputs = {flag: local_path(name, flag) for flag, name in given.items() if name}
    for flag, path in outputs.items():
        replaceable(path, flag, args.overwrite, [file, query])
    index = indexes.opened(file)
    index = index.grouped() if args.group == "tracklet" else index
    names, query_QD = _queries(query, about)
    row_QK, distance_QK, said = index.search(query_QD, args.top)
    answers = [
        {
            "query": name,
            "found": [
                {"key": index.keys[row], "distance": round(float(distance), 6)}
                for row, distance in zip(rows, distances, strict=True)
                if threshold is None or distance < threshold
            ],
        }
        for name, rows, distances in zip(names, row_QK, distance_QK, strict=True)
    ]
    print(table(answers, said, threshold))
    if "--output" in outputs:
        written = {"index": args.index, "how": said, "adapt": adapted, "threshold": threshold, "answers": answers}
        write_text(outputs["--output"], json.dumps(written, indent=1) + "\n")
    if "--sheet" in outputs:
        _draw(outputs["--sheet"], answers, query, local_path(args.images, "--images"))


def table(answers: Sequence[dict[str, Any]], said: str, threshold: float | None) -> str:
    """What a person wants to see: a line for every answer."""
    lines = [said + ("" if threshold is None else f", nearer than {threshold:.4f}")]
    for answer in answers:
        lines.append(f"{answer['query']}: {len(answer['found'])} found")
        lines += [f"{place:>5} {each['distance']:8.4f}  {each['key']}" for place, each in enumerate(answer["found"], 1)]
    return "\n".join(lines)


def _threshold(
    threshold: float | None, fpr: float | None, scores: str | None, about: Mapping[str, Any]
) -> float | None:
    """The cosine distance below which people are the same; None where no threshold is asked for."""
    if fpr is None:
        return threshold
    if threshold is not None or scores is None:
        raise ConfigError("--fpr takes its threshold from --scores=FILE of cion_jax.evaluate; leave --threshold out")
    try:
        found = json.loads(read_regular(local_path(scores, "--scores")))
        points = {point["fpr"]: point["threshold"] for point in found["tpr_at_fpr"]}
        plain = found["metric"] == "cosine" and not found["rerank"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--scores={scores} is no result of cion_jax.evaluate of one benchmark: {error!r}") from error
    adapted = about.get("adapt")
    _check_network(found, f"--scores={scores}", about, "evaluate and embed with the same --checkpoint")
    if _digest(found.get("adapt")) != _digest(adapted):
        raise ConfigError(
            f"--scores={scores} is of features adapted as {_digest(found.get('adapt'))}, the index as "
            f"{_digest(adapted)}; evaluate and embed with the same --adapt"
        )
    if not plain:
        raise ConfigError(f"--scores={scores} is of another distance; evaluate with cosine and without re-ranking")
    if not all(type(value) in (int, float) and 0 <= value <= 2 for value in points.values()):
        raise ConfigError(f"--scores={scores} has thresholds that are no cosine distances: {list(points.values())[:5]}")
    if fpr not in points:
        raise ConfigError(f"--scores={scores} knows false positive rates {', '.join(map(str, points))}, got {fpr}")
    return points[fpr]


def _digest(adapted: dict[str, Any] | None) -> str:
    """Which adaptation, for comparison and for people."""
    return adapted.get("digest", "unknown")[:12] if adapted else "not at all"


def _check_adapted(query: dict[str, Any] | None, index: dict[str, Any] | None) -> None:
    if _digest(query) != _digest(index):
        raise ConfigError(
            f"the queries' features are adapted as {_digest(query)}, the index's as {_digest(index)}; give both the "
            "same file of --adapt_output as --adapt"
        )


def _check_network(of: Mapping[str, Any], what: str, index: Mapping[str, Any], remedy: str) -> None:
    """Refuses what another network made; of files that do not say which it was nothing is known."""
    made, indexed = of.get("extractor"), index.get("extractor")
    if made and indexed and made != indexed and not flags.FLAGS.allow_other_network:
        raise ConfigError(
            f"{what} is of the network {of.get('model')} ({made[:12]}), the index of {index.get('model')} "
            f"({indexed[:12]}): their features have nothing to do with one another; {remedy}, or "
            "--allow_other_network where one is an export of the other"
        )


def _queries(query: Path, about: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
    """Names and features of the queries, of a file of features or embedded: adapted as those of the index are."""
    if query.suffix in feature_file.SUFFIXES:
        if flags.FLAGS.adapt:
            raise ConfigError("features of a file are taken as they are; adapt them when they are embedded")
        file = FeatureFile(query)
        _check_network(file.about, f"--query={query}", about, "embed both with the same --checkpoint")
        _check_adapted(file.about.get("adapt"), about.get("adapt"))
        return file.keys, file.features
    paths = sorted(
        path for path in (walk(query) if query.is_dir() else [query]) if path.suffix.lower() in images.SUFFIXES
    )
    if not paths:
        raise ConfigError(
            f"no image in --query={query}; expected an image, a folder of some, or a .npz or .parquet file"
        )
    if flags.FLAGS.checkpoint is None:
        raise ConfigError("queries that are images need --checkpoint, that of the index")
    extractor = extractor_of_flags()
    own = {"extractor": extractor.digest(), "model": extractor.name}
    _check_network(own, f"--checkpoint={flags.FLAGS.checkpoint}", about, "give that of the index")
    adaptation = adaptation_of_flags(extractor)
    _check_adapted(adaptation.about() if adaptation else None, about.get("adapt"))
    found = embed_files(extractor, paths, "embedding queries")
    list_unreadable(found.unreadable, len(paths), "query")
    if found.kept.sum() == 0:
        raise ConfigError(f"none of {len(paths)} images of --query={query} can be read")
    root = query if query.is_dir() else query.parent
    names = [path.relative_to(root).as_posix() for path, kept in zip(paths, found.kept, strict=True) if kept]
    if adaptation is None:
        return names, found.features
    return names, adapt(adaptation, found.features, unlabeled.cameras_of(names, adaptation.cameras), "query")


def _draw(sheet: Path, answers: Sequence[dict[str, Any]], query: Path, gallery: Path) -> None:
    """A column for every query: it, marked, and what was found; a tracklet is its first image."""
    root = query if query.is_dir() else query.parent
    paths = [root / answer["query"] for answer in answers]
    columns: list[list[tuple[int, bool]]] = []
    for number, answer in enumerate(answers):
        found = [gallery / each["key"] for each in answer["found"]]
        columns.append([(number, True), *((len(paths) + i, False) for i in range(len(found)))])
        paths += [min(path.iterdir()) if path.is_dir() else path for path in found]

    def jpegs(numbers: list[int]) -> list[bytes | None]:
        return [read_regular(paths[number]) if paths[number].is_file() else None for number in numbers]

    if lost := [path for path in paths if not path.is_file()]:
        print(
            f"warning: {len(lost)} of {len(paths)} pictures of the sheet are not there, the first: "
            f"{printable(lost[0])}; --images=DIR says where the keys of the index start",
            file=sys.stderr,
        )
    contact_sheet.save(sheet, contact_sheet.sheet(columns, jpegs))


def define_flags() -> None:
    """Defines what the command takes."""
    define_extractor_flags(required=False)
    flags.DEFINE_string("index", None, "Features of the gallery, a .npz or .parquet file.", required=True)
    flags.DEFINE_string("query", None, "An image, a folder of images, or a file of features.", required=True)
    cli.define_number("top", 20, "Answers to a query at most.", between(1, 10**6))
    cli.define_number("threshold", None, "Cosine distance that answers must be below.", between(0, 2), whole=False)
    cli.define_number(
        "fpr", None, "Take the threshold that had this false positive rate in --scores.", SHARE, whole=False
    )
    flags.DEFINE_string("scores", None, "JSON file of cion_jax.evaluate, of the same checkpoint.")
    flags.DEFINE_enum("group", "image", ("image", "tracklet"), "What is found: images, or folders of them as one.")
    define_adapt_flags(own_means=False)
    flags.DEFINE_bool(
        "allow_other_network", False, "Answers even where index and queries say to be of two networks (an ONNX export)."
    )
    flags.DEFINE_string("output", None, "JSON file to write.")
    flags.DEFINE_string("sheet", None, "Contact sheet (PNG) to draw.")
    define_overwrite()
    flags.DEFINE_string("images", ".", "Folder that the index's keys are relative to, for the contact sheet.")


def run_main() -> None:
    """The command `cion-search`."""
    define_flags()
    cli.run(main)


if __name__ == "__main__":
    run_main()

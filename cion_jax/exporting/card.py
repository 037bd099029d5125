"""The model card beside an export: what the file is, where its weights come from, how it was trained, how to use it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from cion_jax.common.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from cion_jax.exporting.formats import Format
from cion_jax.training.metrics import ROWS, read_rows
from cion_jax.weights.backbone import Backbone, Run

_PEOPLE = (
    *("", "## People", ""),
    "The features are made to recognize a person in images of other cameras: personal data where the images are that.",
    "A blurred face does not make a person anonymous: features come from clothes, build and what is carried, and tell",
    "people apart without a face.",
)
UNKNOWN_LICENCE = "not stated (--licence); weights are bound by the terms of the data that they were trained on"


def card(
    file: Path,
    kind: Format,
    backbone: Backbone,
    *,
    source: str,
    network: str,
    licence: str,
    error: float,
    adapted: str = "",
) -> str:
    """The card as markdown.

    Args:
      file: the export; it is read for its hash, its name is on the card.
      kind: its format.
      backbone: what it holds.
      source: where the weights come from, as the command line said it.
      network: "teacher" or "student".
      licence: of the weights; empty if nobody said.
      error: what `Format.error` measured.
      adapted: what the program's last layer was made from; empty: it has no such layer.
    """
    rows = {
        "file": f"`{file.name}`, {file.stat().st_size:,} bytes",
        "SHA-256": f"`{_digest(file)}`",
        "holds": kind.holds,
        **_about(backbone, network, error),
        "adapted": adapted or "no",
        "weights from": f"`{source}`",
        "licence": licence or UNKNOWN_LICENCE,
    }
    use = ["```python", kind.use.replace("FILE", file.name), "```"]
    return "\n".join(
        [f"# {backbone.name}", "", *_table(rows), "", "## Use", "", *use, *_PEOPLE, *_training(backbone.run), ""]
    )


def folder_card(
    files: Mapping[Path, str], backbone: Backbone, *, source: str, network: str, licence: str, error: float
) -> str:
    """The card of a folder: `README.md` with the header that model hubs read.

    Args:
      files: what the folder holds, and what each of them is; `example.py` is on the card whole.
      backbone, source, network, licence, error: as of `card`.
    """
    rows = {**_about(backbone, network, error), "weights from": f"`{source}`", "licence": licence or UNKNOWN_LICENCE}
    sizes = [
        f"| `{file.name}` | {held} | {file.stat().st_size:,} | `{_digest(file)}` |" for file, held in files.items()
    ]
    (example,) = (file.read_text("utf-8") for file in files if file.suffix == ".py" and file.stem == "example")
    tags = [f"- {tag}" for tag in ("person-re-identification", "reid", backbone.name)]
    header = [
        "---",
        f"library_name: {_library(files)}",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        *tags,
        "---",
    ]
    about = ["", f"# {backbone.name}", "", *_table(rows), "", "## Files", ""]
    table = ["| file | holds | bytes | SHA-256 |", "| --- | --- | --- | --- |", *sizes]
    use = ["", "## Use", "", "```python", example.strip(), "```"]
    return "\n".join([*header, *about, *table, *use, *_PEOPLE, *_training(backbone.run), ""])


def _library(files: Mapping[Path, str]) -> str:
    """By which software a model hub says that it is loaded."""
    names = {file.name for file in files}
    return "reid" if "reid_config.json" in names else "timm" if "config.json" in names else "cion-jax"


def _about(backbone: Backbone, network: str, error: float) -> dict[str, str]:
    height, width = backbone.size
    return {
        "backbone": f"{backbone.name}, {network}",
        "parameters": f"{_count(backbone.params):,}, and {_count(backbone.stats):,} running statistics",
        "input": f"{height} x {width} pixels (height x width), RGB / 255, {_standardized(backbone.preprocessing)}",
        "features": f"{backbone.module().features}",
        "checked": f"read again; largest difference from Flax {error:.1e} of the features' standard deviation",
    }


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]


def _standardized(preprocessing: Preprocessing) -> str:
    if (preprocessing.mean, preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD):
        return "ImageNet mean and standard deviation"
    return f"mean {preprocessing.mean}, standard deviation {preprocessing.std}"


def _training(run: Run | None) -> list[str]:
    if run is None:
        return ["", "## Training", "", "Not done here: the weights come from a file, or are random."]
    data = f"Data: `{Path(run.config.data.path).name}`, digest of its index `{run.index}`."
    return [
        *("", "## Training", "", f"{run.step:,} steps. {data}", ""),
        *("| last metrics until then | |", "| --- | --- |"),
        *(f"| {name} | {value:.6g} |" for name, value in _metrics(run).items()),
        *("", "## Config", "", "```json", json.dumps(dataclasses.asdict(run.config), indent=1), "```"),
    ]


def _metrics(run: Run) -> dict[str, Any]:
    """The last values that are not later than the checkpoint: scores have rows of their own."""
    rows = [row for row in read_rows(run.workdir / ROWS) if row["step"] <= run.step]
    return functools.reduce(operator.or_, sorted(rows, key=lambda row: row["step"]), {})


def _count(tree: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

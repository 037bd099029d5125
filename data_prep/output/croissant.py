"""``croissant.json``: the data set in MLCommons' Croissant 1.1, which dataset search engines and hubs read.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. The records themselves are ArrayRecord files, which
the format has no reader for: they are listed, and `provenance.parquet` is described column by column.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from cion_jax.common.files import write_text
from cion_jax.data import records
from data_prep.output import dataset_card
from data_prep.output.provenance import PROVENANCE, RunResult

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_OF_CROISSANT = (
    *("citeAs", "column", "conformsTo", "containedIn", "extract", "field", "fileObject", "fileSet", "includes"),
    *("isArray", "arrayShape", "key", "md5", "recordSet", "repeated", "source"),
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    **{name: f"cr:{name}" for name in _OF_CROISSANT},
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
}
_PEOPLE = (
    "Images of people. README.md says whether faces are blurred; blurred faces "
    "do not make people anonymous: clothes, build and what is carried still tell who somebody is."
)
_COLUMNS = {
    "key": "unique name of an image",
    "video": "the video that it is from",
    "tracklet": "its track, as the tracker named it",
    "frame": "frame number in the video, -1 where unknown",
    "identity": "person, 0 .. identities - 1 for those in the records; null: none",
    "confidence": "estimated probability that a pair of the image's identity is right",
    "selected": "whether it was written",
    "record": "number of its record; null: not written",
}


def write(folder: Path, run: RunResult) -> None:
    """Writes the description into an identity-shard folder, whose other files are there but for the metrics."""
    write_text(
        folder / records.CROISSANT_FILE, json.dumps(description(folder, run), indent=1, ensure_ascii=False) + "\n"
    )


def description(folder: Path, run: RunResult) -> dict[str, Any]:
    """The content of the file, JSON-LD."""
    images, identities = run.selection["images"], run.selection["identities"]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": records.DATASET_NAME,
        "description": f"{images:,} images of {identities:,} people, {dataset_card.how_found(run)}.",
        "version": "1.0.0",
        "isLiveDataset": False,
        "rai:personalSensitiveInformation": _PEOPLE,
        "distribution": [
            _file(folder / records.PROVENANCE_FILE, "application/x-parquet"),
            _file(folder / records.INDEX_FILE, "application/zip"),
            {
                "@type": "cr:FileSet",
                "@id": "records",
                "name": "records",
                "description": "tf.train.Example with a JPEG, in ArrayRecord files; a TFDS folder (README.md)",
                "encodingFormat": "application/octet-stream",
                "includes": f"{records.DATASET_NAME}-{records.SPLIT}.array_record-*",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "One row per image that was read: where it came from and what became of it.",
                "key": {"@id": "images/key"},
                "field": [_field(column) for column in PROVENANCE if column.name in _COLUMNS],
            }
        ],
    }


def _file(path: Path, kind: str) -> dict[str, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": kind,
        "sha256": digest,
    }


def _field(column: pa.Field) -> dict[str, Any]:
    kinds = (
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
    )
    kind = next((name for test, name in kinds if test(column.type)), "sc:Text")
    return {
        "@type": "cr:Field",
        "@id": f"images/{column.name}",
        "name": column.name,
        "description": _COLUMNS[column.name],
        "dataType": kind,
        "source": {"fileObject": {"@id": records.PROVENANCE_FILE}, "extract": {"column": column.name}},
    }

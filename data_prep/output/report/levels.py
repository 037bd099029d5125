"""What every level of denoising left: the first section of the report, and what a notebook shows of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from data_prep.output.provenance import LEVELS
from data_prep.output.report import charts, view
from data_prep.output.report.view import Section, Table

TITLES = dict(zip(LEVELS, ("Input", "Level 1: tracklet", "Level 2: video", "Level 3: all videos"), strict=True))
_COLUMNS = {
    "images": "{:,}",
    "identities": "{:,}",
    "noise": "{:.3f}",
    "consistency_noise": "{:.3f}",
    "discrimination_noise": "{:.3f}",
    "pairwise_precision": "{:.3f}",
    "pairwise_recall": "{:.3f}",
    "pairwise_f1": "{:.3f}",
    "bcubed_f1": "{:.3f}",
}
_NOISE = (
    "Noise counts, per identity, what contradicts the thresholds: identities too wide to be one person "
    "(consistency) and pairs of identities too near to be two (discrimination)."
)


def section(levels: Sequence[Mapping[str, Any]], selection: Mapping[str, Any]) -> Section:
    """A table of the levels and of what was written, and a chart where there are several levels."""
    shown = {name: form for name, form in _COLUMNS.items() if name in levels[0]}
    titles = [TITLES[level["name"]] for level in levels]
    rows = [
        (title, *(form.format(level[name]) for name, form in shown.items()))
        for title, level in zip(titles, levels, strict=True)
    ]
    written = [f"{selection[name]:,}" for name in ("images", "identities")]
    rows.append(("Written", *written, *[""] * (len(shown) - 2)))
    head = ("", *(name.replace("_", " ").replace(" f1", " F1").replace(" noise", "") for name in shown))
    short = [title.split(":")[0] for title in titles]
    chart = charts.levels(levels, short) if len(levels) > 1 else None
    return Section("Level by level", "", _NOISE, table=Table(head, rows), chart=chart)


def fragment(metrics: Mapping[str, Any]) -> str:
    """The same as HTML without a page around it, from the content of ``metrics.json``."""
    found = section(metrics["levels"], metrics["selection"])
    return view.table(found.table or Table((), ())) + (found.chart or Markup(""))

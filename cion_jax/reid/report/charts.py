"""The curves of the report, as inline SVG."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cion_jax.reid.analysis import Analysis
from cion_jax.reid.metrics import Scores

SAME, DIFFERENT, LINE = "#2f9e75", "#d9534f", "#3b7dd8"
_JOINED = 5  # bins of the analysis that are one bar
_INK = "#010203"  # stands for "the color of the text" until the SVG is written: Matplotlib has no such color
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def curves(scores: Scores, analysis: Analysis) -> str:
    """CMC, ROC and distances side by side: an `<svg>` element."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        for axes, draw in zip(figure.subplots(1, 3), (_cmc, _roc, _distances), strict=True):
            draw(axes, scores, analysis)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def _cmc(axes: Axes, scores: Scores, analysis: Analysis) -> None:
    axes.plot(np.arange(1, len(scores.cmc) + 1), 100 * scores.cmc, color=LINE)
    axes.set(title="CMC", xlabel="rank", ylabel="queries with a match, %", ylim=(0, 101), xlim=(1, len(scores.cmc)))


def _roc(axes: Axes, scores: Scores, analysis: Analysis) -> None:
    fpr, tpr = analysis.roc()
    axes.semilogx(np.maximum(fpr, 1e-7), 100 * tpr, color=LINE)
    axes.plot([o.fpr for o in scores.operating], [100 * o.tpr for o in scores.operating], "o", color=DIFFERENT)
    axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate, %", xlim=(1e-5, 1), ylim=(0, 101))


def _distances(axes: Axes, scores: Scores, analysis: Analysis) -> None:
    for counts, color, name in ((analysis.same, SAME, "same"), (analysis.different, DIFFERENT, "different")):
        density = counts.reshape(-1, _JOINED).sum(axis=1) / max(counts.sum(), 1)
        axes.stairs(
            density,
            analysis.edges[::_JOINED],
            fill=True,
            color=color,
            alpha=0.45,
            label=f"{name} ({counts.sum():,} pairs)",
        )
    axes.set(title="Distances of pairs", xlabel="distance", yticks=[])
    axes.legend(loc="upper right")

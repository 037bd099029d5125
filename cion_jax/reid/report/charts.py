"""The curves of the report, as inline SVG."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cion_jax.common.charts import BLUE, GREEN, RED, styled, svg
from cion_jax.reid.analysis import Analysis
from cion_jax.reid.metrics import Scores

SAME, DIFFERENT, LINE = GREEN, RED, BLUE
_JOINED = 5  # bins of the analysis that are one bar


def curves(scores: Scores, analysis: Analysis) -> str:
    """CMC, ROC and distances side by side: an `<svg>` element."""
    with styled():
        figure = Figure(figsize=(11, 3.2), layout="constrained")
        for axes, draw in zip(figure.subplots(1, 3), (_cmc, _roc, _distances), strict=True):
            draw(axes, scores, analysis)
        return svg(figure)


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
    axes.margins(y=0.3)  # room for the legend
    axes.legend(loc="upper right")

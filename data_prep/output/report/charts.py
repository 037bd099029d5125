"""The charts of the report, as inline SVG whose ink follows the page's colors."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

BLUE, AMBER, GREEN, RED = "#3b7dd8", "#e8a33d", "#2f9e75", "#d9534f"
# Stands for "the color of the text" until the SVG is written: Matplotlib has no such color.
_INK = "#010203"
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


def levels(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Markup:
    """Noise per level, stacked by kind, and beside it the scores against the truth where there are any."""
    scored = "pairwise_f1" in rows[0]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9 if scored else 4.5, 2.7), layout="constrained")
        axes = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
        _noise(axes[0], rows, names)
        if scored:
            _scores(axes[1], rows, names)
        return _svg(figure)


@dataclass(frozen=True)
class Panel:
    """One pair of histograms: its title, the name and the value of the threshold, and what is measured."""

    title: str
    symbol: str
    threshold: float
    unit: str = "cosine distance"


def distances(panels: Sequence[tuple[Panel, np.ndarray, np.ndarray]]) -> Markup:
    """Histograms of what one person's images and different people's are like, with the threshold between them."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 2.7), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
            _histograms(axes, *panel)
        return _svg(figure)


def _noise(axes: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    consistency = np.array([row["consistency_noise"] for row in rows])
    discrimination = np.array([row["discrimination_noise"] for row in rows])
    axes.bar(names, consistency, 0.6, color=BLUE, label="consistency")
    axes.bar(names, discrimination, 0.6, bottom=consistency, color=AMBER, label="discrimination")
    for i, row in enumerate(rows):
        axes.annotate(f"{row['noise']:.3g}", (i, row["noise"]), (0, 2), textcoords="offset points", ha="center")
    axes.set_title("Noise")
    axes.margins(y=0.15)
    axes.legend()


def _scores(axes: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    kinds = {"pairwise_precision": BLUE, "pairwise_recall": AMBER, "pairwise_f1": GREEN}
    for name, color in kinds.items():
        label = name.removeprefix("pairwise_").replace("f1", "F1")
        axes.plot(names, [row[name] for row in rows], "o-", color=color, label=label)
    axes.set_ylim(0, 1.05)
    axes.set_title("Pairs against the truth")
    axes.legend()


def _histograms(axes: Any, panel: Panel, same: np.ndarray, other: np.ndarray) -> None:
    end = max(panel.threshold * 1.25, *(float(np.max(values, initial=0)) for values in (same, other)))
    kinds = {"same person": (same, BLUE), "different people": (other, AMBER)}
    for label, (values, color) in kinds.items():
        weights = np.full(len(values), 1 / max(len(values), 1))  # so that both kinds are seen, however many they are
        axes.hist(values, np.linspace(0, end, 41), weights=weights, color=color, alpha=0.7, label=label)
    axes.axvline(panel.threshold, color=RED, linewidth=1.5)
    shares = [f"{np.mean(values < panel.threshold):.1%}" if len(values) else "none" for values, _ in kinds.values()]
    axes.set_title(
        f"{panel.title}\n{panel.symbol} = {panel.threshold:.3g}; below it {shares[0]} and {shares[1]}", weight="normal"
    )
    axes.set_xlabel(panel.unit)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.legend()


def _svg(figure: Figure) -> Markup:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return Markup(svg[svg.index("<svg") :].replace(_INK, "currentColor"))  # Matplotlib escapes its texts

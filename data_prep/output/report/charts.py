"""The charts of the report, as inline SVG whose ink follows the page's colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from cion_jax.common.charts import AMBER, BLUE, GREEN, RED, styled, svg


def levels(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Markup:
    """Noise per level, stacked by kind, and beside it the scores against the truth where there are any."""
    scored = "pairwise_f1" in rows[0]
    with styled():
        figure = Figure(figsize=(9 if scored else 4.5, 2.7), layout="constrained")
        axes = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
        _noise(axes[0], rows, names)
        if scored:
            _scores(axes[1], rows, names)
        return svg(figure)


@dataclass(frozen=True)
class Panel:
    """One pair of histograms: its title, the name and the value of the threshold, and what is measured."""

    title: str
    symbol: str
    threshold: float
    unit: str = "cosine distance"


def distances(panels: Sequence[tuple[Panel, np.ndarray, np.ndarray]]) -> Markup:
    """Histograms of what one person's images and different people's are like, with the threshold between them."""
    with styled():
        figure = Figure(figsize=(9, 2.7), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
            _histograms(axes, *panel)
        return svg(figure)


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

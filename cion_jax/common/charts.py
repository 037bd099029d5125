"""Charts of reports, as inline SVG whose ink follows the page's colors."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import matplotlib as mpl
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


def styled() -> contextlib.AbstractContextManager[Any]:
    """In here figures look like a report's."""
    return mpl.rc_context(_STYLE)


def svg(figure: Figure) -> Markup:
    """An `<svg>` element; it needs no other file and is the same for the same numbers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :].replace(_INK, "currentColor"))  # Matplotlib escapes its texts

"""What the template of the report shows: plain values, which it escapes, and charts, which are SVG already."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """Cells of numbers, right-aligned but for the first column; of `words`, left-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True)
class Crop:
    """One picture.

    Attributes:
      source: a data URI; None: it could not be read.
      hint: what is said where the mouse points at it.
      note: what stands below it.
      marked: it is what its case is about.
      wrong: it shows somebody else than most pictures beside it.
    """

    source: str | None
    hint: str
    note: str
    marked: bool
    wrong: bool


@dataclass(frozen=True)
class Strip:
    """Pictures side by side under one label."""

    label: str
    crops: Sequence[Crop]


@dataclass(frozen=True)
class Case:
    """One captioned box of strips."""

    caption: str
    strips: Sequence[Strip]


@dataclass(frozen=True)
class Section:
    """A headed part of the page.

    Attributes:
      title: of what.
      aside: how much of it is shown.
      text: what it means.
      note: a remark on this section and those after it, above its heading.
      table, chart, cases: what is shown of it, in this order.
    """

    title: str
    aside: str
    text: str
    note: str = ""
    table: Table | None = None
    chart: Markup | None = None
    cases: Sequence[Case] = ()


@dataclass(frozen=True)
class Page:
    """The whole report; every text in it may hold anything."""

    title: str
    lead: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    settings: Table


def render(page: Page) -> str:
    """The report as one HTML document that needs no other file."""
    return _template("report.html").render(vars(page))


def table(of: Table) -> Markup:
    """A table as HTML, without a page around it."""
    return _template("table.html").module.table(of)  # type: ignore[attr-defined]


@functools.cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("data_prep.output.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)

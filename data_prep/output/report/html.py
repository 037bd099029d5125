"""The pieces of HTML that the report is put together from, and its looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667080; --line: #dfe3e8; --page: #fbfbfa; --card: #fff;
  --mark: #d9534f; --good: #2f9e75 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ec; --soft: #98a2b0; --line: #323a46; --page: #14181e; --card: #1c222a } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1080px; padding: 40px 24px 80px; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; font-variant-numeric: tabular-nums }
h1 { font-size: 28px; letter-spacing: -.02em; margin: 0 }
h2 { font-size: 19px; letter-spacing: -.01em; margin: 48px 0 4px }
p { margin: 4px 0 14px; max-width: 72ch }
.soft, h2 small { color: var(--soft); font-weight: 400 }
h2 small { font-size: 14px; margin-left: 6px; letter-spacing: 0 }
.note { margin: 48px 0 -32px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; margin: 24px 0 0 }
.tile, .case { background: var(--card); border: 1px solid var(--line); border-radius: 10px }
.tile { padding: 12px 16px }
.tile b { display: block; font-size: 23px; font-weight: 600; letter-spacing: -.02em; white-space: nowrap }
.tile span { color: var(--soft); font-size: 13px }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px }
th { color: var(--soft); font-weight: 500 }
th, td { padding: 6px 12px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
td { white-space: nowrap }
.words th, .words td { text-align: left; white-space: normal; overflow-wrap: anywhere }
.words td:first-child { white-space: nowrap }
svg { width: 100%; height: auto; margin-top: 16px }
.cases { display: flex; flex-wrap: wrap; gap: 12px }
.case { padding: 10px 12px; margin: 0; max-width: 100%; overflow-x: auto }
.case figcaption { color: var(--soft); font-size: 12.5px; margin-bottom: 6px }
.strips { display: flex; gap: 14px }
.strip > span { display: block; font-size: 12px; color: var(--soft); margin-bottom: 4px; white-space: nowrap }
.strip > div { display: flex; gap: 3px }
.crop { margin: 0; text-align: center; font-size: 11px; line-height: 1.5; color: var(--soft) }
.crop img, .crop i { display: block; height: 96px; min-width: 24px; border-radius: 4px; background: var(--line) }
.crop i { width: 48px; padding-top: 38px; font-style: normal }
.crop.marked img { outline: 3px solid var(--mark); outline-offset: -3px }
.crop.wrong { color: var(--mark); font-weight: 600 }
details { margin-top: 32px }
summary { cursor: pointer; color: var(--soft) }
code { font-size: 13px; overflow-wrap: anywhere }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document; `parts` are HTML already, as everything that the other functions return."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{CSS}</style></head><body>{"".join(parts)}</body></html>\n'
    )


def heading(title: str, lead: str) -> str:
    """The top of the page."""
    return f'<h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p>'


def note(text: str) -> str:
    """A remark on what follows."""
    return f'<p class="note soft">{escape(text)}</p>'


def section(title: str, aside: str, text: str, *parts: str) -> str:
    """A headed part of the page: what it shows, how much of it, and what it means."""
    return f"<h2>{escape(title)} <small>{escape(aside)}</small></h2><p>{escape(text)}</p>{''.join(parts)}"


def tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """Large numbers, each with what it counts."""
    cells = "".join(f'<div class="tile"><b>{escape(n)}</b><span>{escape(of)}</span></div>' for n, of in numbers)
    return f'<div class="tiles">{cells}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: bool = False) -> str:
    """A table of numbers, right-aligned but for the first column; of `words`, left-aligned."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="words"' if words else ""
    return f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, inside: str) -> str:
    """Something that is opened by a click."""
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def crop(source: str | None, hint: str, note: str, marked: bool, wrong: bool) -> str:
    """One picture (a data URI; None: it could not be read) with a tooltip and a note below it."""
    kind = "crop" + " marked" * marked + " wrong" * wrong
    picture = f'<img src="{source}" alt="{escape(hint)}">' if source else "<i>no picture</i>"
    return f'<figure class="{kind}" title="{escape(hint)}">{picture}{escape(note)}</figure>'


def strip(label: str, crops: Iterable[str]) -> str:
    """Pictures side by side under one label."""
    return f'<div class="strip"><span>{escape(label)}</span><div>{"".join(crops)}</div></div>'


def case(caption: str, strips: Iterable[str]) -> str:
    """One captioned box of strips."""
    inside = f'<div class="strips">{"".join(strips)}</div>'
    return f'<figure class="case"><figcaption>{escape(caption)}</figcaption>{inside}</figure>'


def cases(boxes: Iterable[str]) -> str:
    """Boxes, as many in a line as there is room for."""
    return f'<div class="cases">{"".join(boxes)}</div>'

"""Texts of files that nobody vouches for, on one line of a terminal."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 100


def printable(text: object, longest: int = _LONGEST) -> str:
    """A text without line ends, terminal escapes and other signs that cannot be seen; a long one is cut.

    Args:
      text: what `str` is taken of. Give texts, numbers and errors alone: of nested containers `str` can take forever.
      longest: signs that are shown.
    """
    shown = str(text)
    cut = f"{shown[:longest]}..." if len(shown) > longest else shown
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "replace").decode() for sign in cut)


def utf8(text: str) -> str:
    """A text that UTF-8 can hold: of names of files, which can be any bytes, what is no text is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def lines(text: object) -> str:
    """A text of any length and any number of lines without terminal escapes and other signs that cannot be seen."""
    return "\n".join(printable(line, len(line)) for line in str(text).split("\n"))


def some(texts: Iterable[str], count: int = 5) -> str:
    """The first of many, and how many more there are: "a, b, c, d, e and 7 more"."""
    listed = [printable(text) for text in texts]
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more

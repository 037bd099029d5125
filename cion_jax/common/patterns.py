"""Regular expressions that users give. Matching them takes time in proportion to the text, whatever the expression.

Python's own `re` tries all ways to match: `(a+)+$` takes longer than anybody waits on a name of thirty letters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import re2

from cion_jax.common.errors import UserError
from cion_jax.common.printable import printable, utf8

_MEMORY = 2**23  # bytes that a compiled expression may take


def compiled(pattern: str, flag: str) -> Any:
    """A compiled expression: `fullmatch(text)` and `search(text)`, as of `re`.

    Args:
      pattern: in RE2's syntax, https://github.com/google/re2/wiki/Syntax: no looking ahead, no references back.
      flag: that gave it, for the message.

    Raises:
      UserError: it is none, or needs what RE2 does not have.
    """
    options = re2.Options()
    options.log_errors, options.max_mem = False, _MEMORY
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise UserError(
            f"{flag}={printable(pattern)} is no regular expression that can be used: {printable(why)}; expected one in "
            "RE2's syntax, which has neither looking ahead nor references back"
        ) from error


def check_patterns(patterns: Iterable[str], flag: str) -> None:
    """Raises UserError where one of the expressions cannot be used."""
    for pattern in patterns:
        compiled(pattern, flag)


def matches_one(patterns: Iterable[Any], text: str) -> bool:
    """Whether one of the compiled expressions matches the whole text, which may hold what is no UTF-8."""
    return any(pattern.fullmatch(utf8(text)) for pattern in patterns)

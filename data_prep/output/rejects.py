"""What was set aside, as a run tells it: by reason, with examples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cion_jax.common.printable import printable
from cion_jax.data import records

_LONGEST = 300  # characters of an example on a terminal


def examples(folder: Path, reasons: Mapping[str, int], most: int) -> dict[str, list[str]]:
    """The first few inputs of every reason that were set aside, read no further than needed.

    Args:
      folder: of the data set.
      reasons: how often each occurs.
      most: of one reason.

    Returns:
      "where: detail" of each, by reason; empty where there is no list.
    """
    path = folder / records.REJECTED_FILE
    if not path.is_file():
        return {}
    found: dict[str, list[str]] = {reason: [] for reason in reasons}
    with path.open(encoding="utf-8") as file:
        for line in file:
            reject = json.loads(line)
            listed = found.setdefault(reject["reason"], [])
            if len(listed) < most:
                listed.append(f"{reject['where']}: {reject['detail']}")
            elif all(len(found[reason]) >= min(most, count) for reason, count in reasons.items()):
                break
    return found


def told(folder: Path, reasons: Mapping[str, int]) -> Iterator[str]:
    """A line for every reason: how often, and the first input that it concerns. Any of it can be printed."""
    first = examples(folder, reasons, 1)
    for reason, count in reasons.items():
        example = first.get(reason, [""])[0][:_LONGEST]
        yield printable(f"{count:,} {reason}, first {example}", _LONGEST + 100)

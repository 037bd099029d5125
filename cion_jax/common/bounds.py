"""What numbers a setting takes, written where the setting is declared. Imports nothing of the project."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Bounds:
    """A range of numbers: `epochs: Annotated[int, at_least(1)]`. `typed_config.freeze` checks it.

    Attributes:
      low, high: least and greatest value; of a tuple, of each of its numbers.
      open_low: whether `low` itself is excluded.
      open_high: whether `high` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'at least'} {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


def at_least(low: float) -> Bounds:
    """Numbers from `low` on."""
    return Bounds(low)


def above(low: float) -> Bounds:
    """Numbers greater than `low`."""
    return Bounds(low, open_low=True)


def between(low: float, high: float) -> Bounds:
    """Numbers from `low` to `high`, both included."""
    return Bounds(low, high)


SHARE = between(0, 1)
SEED = Bounds(0, 2**63, open_high=True)

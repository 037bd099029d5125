"""What numbers a setting takes, written where the setting is declared. Imports nothing of the project."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bounds:
    """A range of numbers: `epochs: Annotated[int, between(1, 1000)]`. `typed_config.freeze` checks it.

    Every setting has both ends, the greatest one beyond whatever makes sense: what is absurd had better be refused
    than take minutes, or all memory.

    Attributes:
      low, high: least and greatest value; of a tuple, of each of its numbers.
      open_low: whether `low` itself is excluded.
      open_high: whether `high` itself is excluded.
    """

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        return f"in {'(' if self.open_low else '['}{self.low:.9g}, {self.high:.9g}{')' if self.open_high else ']'}"


def between(low: float, high: float) -> Bounds:
    """Numbers from `low` to `high`, both included."""
    return Bounds(low, high)


def positive(high: float) -> Bounds:
    """Numbers above 0, up to `high`."""
    return Bounds(0, high, open_low=True)


SHARE = between(0, 1)
SEED = Bounds(0, 2**63, open_high=True)
COUNT = between(1, 10**9)

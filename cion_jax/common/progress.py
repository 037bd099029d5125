"""One line of progress with rate and time left. Standard library only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TextIO, TypeVar

T = TypeVar("T")

_TERMINAL_PAUSE, _FILE_PAUSE = 0.2, 10.0  # seconds between two lines


class Progress:
    """Says how much is done, at what rate, and how long the rest will take.

    On a terminal one line is rewritten; elsewhere, as in a log file, one is added at most every 10 seconds.
    Use it as a context manager, so that the last line is written; `progress` does so for iterables.
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Starts the clock.

        Args:
          total: number of things to do, None where nobody knows.
          what: beginning of the line, such as "embedding queries".
          stream: where to write; stderr unless told.
          clock: seconds, for tests.
        """
        self.total, self.what, self.done = total, what, 0
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._start = self._written = clock()

    def advance(self, n: int = 1) -> None:
        """Counts n more things as done."""
        self.done += n
        if self._clock() - self._written >= (_TERMINAL_PAUSE if self._terminal else _FILE_PAUSE):
            self._write()

    def line(self) -> str:
        """The current line, without line ends."""
        seconds = max(self._clock() - self._start, 1e-9)
        count = f"{self.done:,}" if self.total is None else f"{self.done:,}/{self.total:,}"
        parts = [f"{self.what}: {count}", f"{self.done / seconds:,.1f}/s"]
        if self.total is not None and 0 < self.done < self.total:
            parts.append(f"{duration(seconds * (self.total - self.done) / self.done)} left")
        else:
            parts.append(f"{duration(seconds)} so far" if self.done != self.total else f"took {duration(seconds)}")
        return ", ".join(parts)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        if self._terminal:
            print(file=self._stream, flush=True)

    def _write(self) -> None:
        self._written = self._clock()
        line = f"\r\x1b[K{self.line()}" if self._terminal else f"{self.line()}\n"
        print(line, end="", file=self._stream, flush=True)


def progress(things: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields the things and reports how far it got; a thing counts as done when the next one is asked for.

    Args:
      things: what to iterate over.
      what: beginning of the line.
      total: their number; taken from `things` where they know it.
    """
    if total is None and isinstance(things, Sized):
        total = len(things)
    with Progress(total, what) as bar:
        for thing in things:
            yield thing
            bar.advance()


def duration(seconds: float) -> str:
    """A time span for people: "8 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"

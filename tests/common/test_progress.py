"""The progress line, on a clock that stands still unless told."""

import io

import pytest

from cion_jax.common.progress import Progress, duration, progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_time_left():
    clock = Clock()
    bar = Progress(4000, "embedding", stream=io.StringIO(), clock=clock)
    bar.advance(1000)
    clock.now = 50
    assert bar.line() == "embedding: 1,000/4,000, 20.0/s, 2 min 30 s left"
    bar.advance(3000)
    assert bar.line() == "embedding: 4,000/4,000, 80.0/s, took 50 s"


def test_unknown_total():
    clock = Clock()
    bar = Progress(None, "reading", stream=io.StringIO(), clock=clock)
    bar.advance(10)
    clock.now = 4
    assert bar.line() == "reading: 10, 2.5/s, 4 s so far"


def test_a_file_gets_a_line_every_ten_seconds_and_a_last_one():
    clock, stream = Clock(), io.StringIO()
    with Progress(25, "reading", stream=stream, clock=clock) as bar:
        for clock.now in range(1, 26):
            bar.advance()
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["reading: 10/25", "reading: 20/25", "reading: 25/25"]


def test_a_terminal_gets_one_line():
    clock, stream = Clock(), Terminal()
    with Progress(3, "reading", stream=stream, clock=clock) as bar:
        for clock.now in (1, 2, 3):
            bar.advance()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r\x1b[K") == 4


def test_iterating(capsys):
    assert list(progress([1, 2, 3], "counting")) == [1, 2, 3]
    assert capsys.readouterr().err.startswith("counting: 3/3, ")


def test_an_error_in_between_still_ends_the_line(capsys):
    things = progress(iter("ab"), "counting")
    next(things)
    with pytest.raises(RuntimeError):
        things.throw(RuntimeError())
    assert capsys.readouterr().err.startswith("counting: 0, ")


def test_durations():
    assert [duration(s) for s in (8.4, 185, 7800)] == ["8 s", "3 min 05 s", "2 h 10 min"]

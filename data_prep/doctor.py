"""Looks at an input before anything is cropped: what is there, what will be done, what cannot be decided.

    python -m data_prep.doctor --source=S --input=DIR [--config.NAME=VALUE ...]

Exit status 2 where something cannot be decided; every run of data_prep asks the same for a few seconds.
"""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import flags
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cion_jax.common import cli
from cion_jax.common.paths import local_path
from cion_jax.common.printable import lines, printable
from data_prep import sources
from data_prep.config import Config
from data_prep.types import Finding, Reject, Source, SourceError

SECONDS = 5.0  # that a run spends on looking
_LISTED = 5  # videos and messages of a sort that are named


def check(source: Source, seconds: float = SECONDS) -> None:
    """Looks at the first videos of a source for some seconds and says on stderr what is out of the ordinary.

    Raises:
      SourceError: something cannot be decided, or no video has anything to read; the message says what and how to mend.
    """
    found = list(_within(source, seconds))
    _refuse(source, found)
    for line in [*_notes(found), *_copies(source)]:
        print(f"input: {lines(line)}", file=sys.stderr)


def examine(source: Source) -> list[Finding]:
    """What is to be seen in all videos of a source."""
    return list(_within(source, float("inf")))


def _within(source: Source, seconds: float) -> Iterator[Finding]:
    start, videos = time.monotonic(), source.videos()
    for count, video in enumerate(videos):
        if time.monotonic() - start > seconds:
            said = f"looked at {count} of {len(videos)} videos; python -m data_prep.doctor looks at all"
            yield Finding("", {}, notes=(said,))  # it counts as usable: not all has been seen
            return
        yield source.examine(video)


def _refuse(source: Source, found: Sequence[Finding]) -> None:
    problems = [f"{each.video}: {problem}" for each in found for problem in each.problems]
    if problems:
        more = f"\n(and {len(problems) - _LISTED} more)" if len(problems) > _LISTED else ""
        raise SourceError("the input cannot be read beyond doubt:\n" + "\n".join(problems[:_LISTED]) + more)
    if not any(each.usable for each in found):
        first = [*_notes(found)[:_LISTED], *set_aside(source.rejected)[:_LISTED]]
        raise SourceError("nothing in the input can be read:\n" + "\n".join(first))


def _notes(found: Iterable[Finding]) -> list[str]:
    """Notes of all videos, those that are told of many in one line."""
    of: dict[str, list[str]] = defaultdict(list)
    for each in found:
        for note in each.notes:
            of[note].append(each.video)
    return [f"{_names(videos)}{note}" for note, videos in of.items()]


def _names(videos: Sequence[str]) -> str:
    named = ", ".join(filter(None, videos[:_LISTED])) + (f" and {len(videos) - _LISTED} more" * (len(videos) > _LISTED))
    return f"{named}: " if named else ""


def _copies(source: Source) -> list[str]:
    """Videos that are one another's copies: the same people would count as different ones."""
    prints: dict[str, str] = getattr(source, "fingerprints", dict)()
    same: dict[str, list[str]] = defaultdict(list)
    for video, digest in prints.items():
        same[digest].append(video)
    return [
        f"{', '.join(videos[:_LISTED])} have identical pictures: copies of a video show the same people under other ids"
        for digest, videos in same.items()
        if digest and len(videos) > 1
    ]


def _watched(source: Source) -> list[str]:
    """What reading every video to its end finds, where a source has videos."""
    watch: Callable[[str], list[str]] = getattr(source, "watch", lambda video: [])
    return [line for video in source.videos() for line in watch(video)]


def set_aside(rejects: Sequence[Reject]) -> list[str]:
    """One line for each reason, with the first that has it."""
    counts = Counter(reject.reason for reject in rejects)
    first = {reject.reason: reject for reject in reversed(rejects)}
    return [
        f"{count:,} x {reason}, the first: {first[reason].where}: {first[reason].detail}"
        for reason, count in counts.items()
    ]


def define_flags() -> Callable[[], Config]:
    """Defines the flags; returns what gives the settings once they are parsed."""
    flags.DEFINE_string("source", None, f"Format of the input: {', '.join(sources.REGISTRY)}.", required=True)
    flags.DEFINE_string("input", None, "The input folder (for annotations the list).", required=True)
    return cli.define_config(Config, "data_prep")


def main(settings: Callable[[], Config], _: Sequence[str]) -> None:
    """Prints what was found; raises SourceError where something cannot be decided."""
    args, config = flags.FLAGS, settings()
    place = local_path(args.input, "--input")
    tell(sources.open(args.source, place, **sources.options(args.source, config)))


def tell(source: Source) -> None:
    """Prints what is to be seen in a source; raises SourceError where something cannot be decided."""
    found = examine(source)
    Console(width=150).print(_table(found))
    does: dict[str, list[str]] = defaultdict(list)
    for each in found:
        for line in each.does:
            does[line].append(each.video)
    sections = {
        "what will be done": [f"{_names(videos)}{line}" for line, videos in does.items()],
        "out of the ordinary": [*_notes(found), *_copies(source), *_watched(source)],
        "set aside": set_aside(source.rejected),
    }
    for title, said in sections.items():
        if said:
            print(f"{title}:", *(f"  {lines(line)}" for line in said), sep="\n")
    _refuse(source, found)


def run_main() -> None:
    """The command `data_prep.doctor`; never returns."""
    cli.run(functools.partial(main, define_flags()))


def _table(found: Sequence[Finding]) -> Table:
    columns = list(dict.fromkeys(name for each in found for name in each.cells))
    table = Table("video", *columns)
    for each in found:
        table.add_row(escape(printable(each.video)), *(each.cells.get(name, "-") for name in columns))
    return table


if __name__ == "__main__":
    run_main()

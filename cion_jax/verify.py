"""Checks what is kept: reads it from end to end and says what is damaged.

    python -m cion_jax.verify RUN|DATA|FILE ...

What `cion_jax.adapt` and `cion_jax.rounds` wrote: the data set and the run of every round, and the export. A run's
folder: every array of every checkpoint against its digest, the rows of measurements, the config. A data set:
numbers of records, every checksum, every picture decoded, index and provenance against the records. Files of weights
(torch.save and safetensors): every checksum, every length and offset, every number. What `--adapt_output` wrote: its
digest. What `cion_jax.export` wrote, and the folder that it lies in: the digests beside it. Where a folder has digests
(SHA256SUMS), every byte of what they name. Exit status 0 where all is whole, 2 where something is damaged.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from cion_jax.common import cli
from cion_jax.common.paths import local_path
from cion_jax.common.printable import printable
from cion_jax.common.typed_config import ConfigError
from cion_jax.data.records import is_data
from cion_jax.data.verify_data import verify_data
from cion_jax.reid import adaptation
from cion_jax.weights.verify_file import is_exported, verify_exported, verify_file
from cion_jax.weights.verify_run import is_run, verify_run


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
      looked_at: one line, what was read.
      damage: a line for each thing that is wrong.
    """

    looked_at: str
    damage: list[str]


@dataclass(frozen=True)
class Kind:
    """Something that can be checked.

    Attributes:
      what: for messages.
      is_one: whether a path is one.
      check: looks at all of it; a `UserError` says that it cannot be read at all.
    """

    what: str
    is_one: Callable[[Path], bool]
    check: Callable[[Path], Report]


def _in_rounds(path: Path) -> list[Path]:
    """Data sets, runs and the export of a folder that programs which train in rounds wrote."""
    found = [each for name in ("data", "run") for each in sorted(path.glob(f"round*/{name}"))]
    return found and [*found, *(each for each in [path / "export"] if each.is_dir())]


def _verify_rounds(path: Path) -> Report:
    reports = {each.relative_to(path): verify(each) for each in _in_rounds(path)}
    damage = [f"{name}: {line}" for name, report in reports.items() for line in report.damage]
    return Report("; ".join(f"{name}: {report.looked_at}" for name, report in reports.items()), damage)


_SHOWN = 10
KINDS = [
    Kind("a run", is_run, lambda path: Report(*verify_run(path))),
    Kind("a data set", is_data, lambda path: Report(*verify_data(path))),
    Kind("rounds of training", lambda path: bool(_in_rounds(path)), _verify_rounds),
    Kind("a folder of exports", is_exported, lambda path: Report(*verify_exported(path))),
    Kind("an adaptation", adaptation.is_adaptation, lambda path: Report(*adaptation.verify(path))),
    Kind("a file of weights", Path.is_file, lambda path: Report(*verify_file(path))),
]


def verify(path: Path) -> Report:
    """Checks what a path names; one that is of no known kind is a damaged thing."""
    for kind in KINDS:
        if kind.is_one(path):
            return kind.check(path)
    what = "is not" if path.exists() else "does not exist; expected"
    return Report("nothing was checked", [f"{printable(path)} {what} {' or '.join(kind.what for kind in KINDS)}"])


def main(argv: Sequence[str]) -> int:
    """Checks everything that is named; a damaged one does not keep the others from being checked."""
    if len(argv) < 2:
        raise ConfigError("nothing to check; give a run, a data set or a file: python -m cion_jax.verify RUN|DATA|FILE")
    reports = {name: verify(local_path(name, "verify")) for name in argv[1:]}
    for name, report in reports.items():
        said = f"{len(report.damage)} damaged" if report.damage else "ok"
        print(f"{printable(name)}: {said}: {report.looked_at}")
        shown = report.damage if flags.FLAGS.all else report.damage[:_SHOWN]
        print(*(f"  {line}" for line in shown), sep="\n", end="\n" if shown else "", file=sys.stderr)
        if len(shown) < len(report.damage):
            print(f"  and {len(report.damage) - len(shown)} more; --all lists them", file=sys.stderr)
    return cli.MISTAKE if any(report.damage for report in reports.values()) else 0


def define_flags() -> None:
    """Defines --all."""
    flags.DEFINE_bool("all", False, "List every damaged thing, not the first ten.")


def run_main() -> None:
    """The command `cion-verify`."""
    define_flags()
    cli.run(main, names=True)


if __name__ == "__main__":
    run_main()

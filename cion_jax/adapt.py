"""Makes a network better on your own cameras, without labels.

    python -m cion_jax.adapt --source=mot --input=VIDEOS --checkpoint=osnet_x0_25=FILE.pth --output=DIR [--minutes=60]

Finds identities among the tracks with the network itself, trains it on them, finds better identities with the better
network, and so on; measures every round without labels, and keeps what is shown to be better than what you have, or
that. Written to DIR: `export/` (the folder of `cion-export --format=folder`: weights, ONNX, configs, card),
`report.html`, `report.json`, and a folder for every round. The same command continues where it was stopped; settings of
how the input is read are given as `--config.NAME=VALUE`, as to `python -m data_prep`.

Exit status: 0 done; 1 training had to stop; 2 a mistake; 75 asked to leave by SIGTERM or SIGINT, and saved.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from cion_jax.common import checksums, cli
from cion_jax.common.bounds import between
from cion_jax.common.errors import UserError
from cion_jax.common.paths import local_path
from cion_jax.common.printable import lines
from cion_jax.common.typed_config import freeze
from cion_jax.data.records import METRICS_FILE, damage
from cion_jax.export import export_folder
from cion_jax.rounds import budget, report, run
from cion_jax.rounds.run import Job
from cion_jax.weights.load import load
from data_prep import sources
from data_prep.config import Config
from data_prep.output.dataset import Dataset

_READING = re.compile(r"tracks$|(mot|annotations)\.")  # settings of how an input is read
KEPT = "export"
"""Folder of the network that is kept, as other software loads it."""


def adapt(job: Job, asked_to_leave: Callable[[], bool] = lambda: False) -> Path:
    """Runs or continues a job, exports the network that is kept and writes the report.

    Returns:
      The page of the report; what is exported lies in `export/` beside it.

    Raises:
      UserError: input, checkpoint, settings and output do not fit together.
      LeftError: it was asked to leave.
      TrainingStopped, SaveError, UnreadableError: as of `training.loop.train`.
    """
    rounds, probe = run.run(job, asked_to_leave)
    kept = run.best(rounds)
    made = job.output / KEPT
    for line in (wrong := checksums.damage(made / checksums.SUMS)):
        print(f"{lines(line)}: it is exported again", file=sys.stderr)
    if wrong or not made.is_dir():
        origin = {"source": kept.checkpoint, "network": "teacher", "licence": ""}
        export_folder(load(kept.checkpoint), made, overwrite=bool(wrong), **origin)
    return report.write(job.output, rounds, kept, probe)


def main(settings: Callable[[], Config], _: Sequence[str]) -> int:
    """Does what the flags say; the exit status is explained above."""
    args = flags.FLAGS
    output = local_path(args.output, "--output")
    options = {"minutes": args.minutes, "rounds": args.rounds, "steps": args.steps, "config": args.recipe}
    job = job_of(args.source, args.input, args.checkpoint, output, dataclasses.asdict(settings()), **options)

    def work(asked_to_leave: Callable[[], bool]) -> None:
        page = adapt(job, asked_to_leave)
        print(job.output / KEPT)
        print(page)

    return run.status(work)


def job_of(source: str, input: str, checkpoint: str, output: Path, data: Mapping[str, Any], **options: Any) -> Job:
    """A job of what people write.

    Args:
      source: format of the input; empty where that is a data set of data_prep, whose own input is read again.
      input, checkpoint: as the command takes them.
      output: of the job, as are the options.
      data: settings of data_prep by name.

    Raises:
      UserError: a setting is none, or the input's format is not known.
    """
    folder = local_path(input, "--input")
    if not source:
        if not (folder / METRICS_FILE).is_file():
            raise UserError(
                f"--input={folder} is no data set of data_prep; say its format, --source={'|'.join(sources.REGISTRY)}"
            )
        source, folder, data = _as_it_was_read(folder, data)
    return Job(source, folder, spelled_out(checkpoint), output, data=freeze(Config, data), **options)


def _as_it_was_read(folder: Path, data: Mapping[str, Any]) -> tuple[str, Path, dict[str, Any]]:
    """(format, input, settings) of a data set; those of reading are its own where `data` has no others."""
    with damage(folder / METRICS_FILE):
        metrics = Dataset(folder).metrics
        origin, recorded = metrics["source"], dict(metrics["settings"])
        source, input = str(origin["name"]), Path(origin["input"])
    usual = dataclasses.asdict(Config())
    settings = {name: dict(value) if isinstance(value, Mapping) else value for name, value in {**usual, **data}.items()}
    taken = []
    for name in filter(_READING.match, recorded):
        group, _, leaf = name.rpartition(".")
        inside, default = (settings[group], usual[group]) if group else (settings, usual)
        if leaf in default and inside.get(leaf) == default[leaf] != recorded[name]:
            inside[leaf] = recorded[name]
            taken.append(f"config.{name}={recorded[name]}")
    if taken:
        print(f"{input} is read as for {folder}: {', '.join(taken)}", file=sys.stderr)
    return source, input, settings


def spelled_out(checkpoint: str) -> str:
    """`osnet_x0_25=FILE` as `weights.load` takes it; anything else as it is."""
    named = "=" in checkpoint and ":" not in checkpoint.partition("=")[0]
    return f"file:{checkpoint}" if named else checkpoint


def define_flags() -> Callable[[], Config]:
    """Defines what the command takes; returns what gives the settings of data_prep."""
    flags.DEFINE_string(
        "source", "", f"Format of the input: {', '.join(sources.REGISTRY)}. Not needed for what data_prep has written."
    )
    flags.DEFINE_string("input", None, "Folder of videos or crops, or a data set of data_prep.", required=True)
    flags.DEFINE_string(
        "checkpoint", None, "NAME=FILE (PyTorch, ONNX or safetensors), or as other commands take it.", required=True
    )
    flags.DEFINE_string("output", None, "Folder of this adaptation.", required=True)
    cli.define_number("minutes", 60.0, "For everything, about; turned into steps once.", between(0, 10**6), whole=False)
    cli.define_number(
        "rounds", 4, f"At most; fewer where the minutes leave each less than {budget.SHORTEST} steps.", between(1, 1000)
    )
    cli.define_number("steps", 0, "Of a round; 0: as many as the minutes allow.", between(0, 10**9))
    flags.DEFINE_string("recipe", "adapt", "Config of the training runs: a file or the name of a packaged one.")
    return cli.define_config(Config, "data_prep")


def run_main() -> None:
    """The command `cion-adapt`."""
    cli.run(functools.partial(main, define_flags()))


if __name__ == "__main__":
    run_main()

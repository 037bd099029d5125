"""Rounds of self-training: identities with one extractor, pre-training on them, better identities with the result.

    python -m cion_jax.rounds --source=mot --input=VIDEOS --embedder=color --recipe=demo --output=OUT [--rounds=2]
        [--benchmark=market1501 --data=DIR] [--train=optimizer.learning_rate=1e-3] [--config.mot.first_frame=1]

Round 1 finds identities with `--embedder`, every further one with the backbone of the round before, or with both and
their distances averaged (`--keep_embedder`). Pre-training starts from the weights of the round before, or anew
(`--start=scratch`). `OUT/round1/{data,run}` and so on hold what a round made; `OUT/rounds.json` and the table at the
end compare them: identities, noise, agreement with the truth where it is known, frozen scores on a benchmark.
What is done is skipped, so the same command continues where it was stopped. `--config.NAME=VALUE` are settings of
data_prep.

Exit status: 0 done; 1 training had to stop; 2 a mistake; 75 asked to leave by SIGTERM or SIGINT, and saved.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

import cion_jax
import data_prep
from cion_jax.common import cli, lock, packaged_configs
from cion_jax.common.bounds import between
from cion_jax.common.errors import UserError
from cion_jax.common.files import write_text
from cion_jax.common.paths import local_path
from cion_jax.data.records import damage
from cion_jax.reid import benchmarks
from cion_jax.rounds.run import LeftError, same_input, status
from cion_jax.tasks import freeze
from cion_jax.train import train
from cion_jax.training.config import RunConfig
from data_prep import sources
from data_prep.config import Config

SCORES, TABLE = ("mAP", "rank1"), "rounds.json"


@dataclass(frozen=True)
class Rounds:
    """What was asked for; the attributes are the flags of the same names, `settings` those of data_prep."""

    source: str
    input: Path
    embedder: str
    output: Path
    recipe: str
    rounds: int
    scratch: bool
    keep_embedder: bool
    train: dict[str, Any]
    benchmark: str
    data: str
    settings: Config

    def run(self, asked_to_leave: Callable[[], bool] = lambda: False) -> list[dict[str, Any]]:
        """Runs or continues all rounds; returns a row for each.

        Raises:
          UserError: source, input, embedder, recipe and settings do not fit together.
          LeftError: it was asked to leave.
          TrainingStopped, SaveError, UnreadableError: as of `training.loop.train`.
        """
        self._config({})  # mistakes are told before the work, not after it
        if self.benchmark:
            benchmarks.load(self.benchmark, local_path(self.data, "--data"))
        self.output.mkdir(parents=True, exist_ok=True)
        with lock.held(self.output, "rounds of self-training"):
            rows = []
            for number in range(1, self.rounds + 1):
                rows.append(self._round(number, asked_to_leave))
                write_text(self.output / TABLE, json.dumps(rows, indent=1) + "\n")
            return rows

    def _folder(self, number: int) -> Path:
        return self.output / f"round{number}"

    def _embedder(self, number: int) -> str:
        """What round `number` finds identities with."""
        if number == 1:
            return self.embedder
        learned = f"flax:{self._folder(number - 1) / 'run'}"
        return f"{self.embedder}+{learned}" if self.keep_embedder else learned

    def _round(self, number: int, asked_to_leave: Callable[[], bool]) -> dict[str, Any]:
        folder, embedder = self._folder(number), self._embedder(number)
        folder.mkdir(exist_ok=True)
        print(f"round {number} of {self.rounds}: identities by {embedder}", file=sys.stderr)
        options = dataclasses.asdict(self.settings)
        with same_input(self.output):
            found = data_prep.run(self.source, self.input, folder / "data", embedder, **options).metrics
        if asked_to_leave():
            raise LeftError
        own: dict[str, Any] = {"data.path": str(folder / "data")}
        if number > 1 and not self.scratch:
            own["init_from"] = str(self._folder(number - 1) / "run")
        if not train(self._config(own), folder / "run", asked_to_leave):
            raise LeftError
        last = found["levels"][-1]
        known = {key: last[key] for key in ("images", "identities", "noise", "pairwise_f1", "bcubed_f1") if key in last}
        return {"round": number, "embedder": embedder, **known, **self._scored(folder)}

    def _config(self, own: Mapping[str, Any]) -> RunConfig:
        """Settings of a training run: the recipe's, with a round's own and the user's changes."""
        name, _, argument = self.recipe.partition(":")
        return freeze(
            packaged_configs.load(name, *filter(None, [argument])), {"data.path": cli.UNUSED, **own, **self.train}
        )

    def _scored(self, folder: Path) -> dict[str, float]:
        """Frozen scores of a round's backbone, measured once on a benchmark; empty without one."""
        path = folder / "score.json"
        if not self.benchmark:
            return {}
        asked = {"asked": [self.benchmark, self.data]}
        with damage(path, "delete it; it is made again"):
            found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            if found.get("asked") != asked["asked"]:
                found = cion_jax.evaluate(folder / "run", self.benchmark, self.data) | asked
                write_text(path, json.dumps(found) + "\n")
            return {key: found[key] for key in SCORES}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rounds beside one another, in Markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "embedder"))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main(settings: Callable[[], Config], _: Sequence[str]) -> int:
    """Does what the flags say; the exit status is explained above."""
    args = flags.FLAGS
    if bool(args.benchmark) != bool(args.data):
        raise UserError(f"--benchmark={args.benchmark!r} and --data={args.data!r}: give both or none")
    job = Rounds(
        args.source,
        local_path(args.input, "--input"),
        args.embedder,
        local_path(args.output, "--output"),
        args.recipe,
        args.rounds,
        args.start == "scratch",
        args.keep_embedder,
        dict(cli.change(text, "--train") for text in args.train),
        args.benchmark,
        args.data,
        settings(),
    )
    return status(lambda asked_to_leave: print(table(job.run(asked_to_leave))))


def define_flags() -> Callable[[], Config]:
    """Defines what the command takes; returns what gives the settings of data_prep."""
    flags.DEFINE_enum("source", None, list(sources.REGISTRY), "Format of the input.", required=True)
    flags.DEFINE_string("input", None, "Folder of videos or crops.", required=True)
    flags.DEFINE_string("embedder", None, "Extractor of the first round, as data_prep takes it.", required=True)
    flags.DEFINE_string("output", None, "Folder of the rounds.", required=True)
    flags.DEFINE_string("recipe", "demo", "Config of the training runs: a file or the name of a packaged one.")
    cli.define_number("rounds", 2, "How many.", between(1, 100))
    flags.DEFINE_enum("start", "last", ["last", "scratch"], "Weights that a further round starts from.")
    flags.DEFINE_bool("keep_embedder", False, "Further rounds average distances with those of --embedder.")
    flags.DEFINE_multi_string("train", [], "NAME=VALUE, a change to the recipe; may be given several times.")
    flags.DEFINE_string("benchmark", "", "Score every round's backbone on this benchmark.")
    flags.DEFINE_string("data", "", "Folder of the benchmark.")
    return cli.define_config(Config, "data_prep")


def run_main() -> None:
    """The command `cion-rounds`."""
    cli.run(functools.partial(main, define_flags()))


if __name__ == "__main__":
    run_main()

"""Does pre-training learn what it claims? Single images, tracklets, found and true identities, else the same.

    python -m benchmarks.evidence --data=MARKET --onnx=FILE --out=OUT [--rows=tracklet,ours] [--seeds=0,1] [--steps=400]

The train folder of Market-1501 with the noise of `benchmarks.denoise_quality` is grouped in every way of `ROWS`,
written as identity shards, and learned from for the same number of steps of as many images. Frozen features are scored
on the benchmark's test by the official protocol, which decides nothing here. OSNet's features serve for grouping only.
Rows start from random weights, or from a file: `--set=init_from=FILE`. Another config wants another OUT.

`--held_out=5` is for choosing settings: every fifth person of the train folder is in no row's images, and these people
are what rows are scored on, one query of each in each camera. `--share=0.3` learns from so many of the other people.

Every result is a line of `OUT/evidence.jsonl` with commit, hardware and the commands that repeat it. What is done with
the same commands is not done again, and a run that was stopped goes on from its checkpoint. `--jobs` rows run at once,
the cores divided among them; with `--platform=cuda` they share a GPU, and the line says which. Another platform wants
another OUT. `--picture=FILE.png` draws the table, `--against=tracklet` compares with another row than single images.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

import data_prep
from benchmarks import common
from benchmarks.denoise_quality import Case, Embedded, Ours, chains
from benchmarks.noisy_market import Noisy, held_out, noisy, people_apart, so_manieth
from cion_jax.common import cli, packaged_configs
from cion_jax.common.files import write_text
from cion_jax.common.progress import progress
from cion_jax.data.records import METRICS_FILE, Index
from cion_jax.neighbors import score
from cion_jax.rounds import recipes
from cion_jax.tasks import freeze

LINES, SCORE = "evidence.jsonl", "score.json"
SCORES = ("mAP", "rank1", "mINP")
INSTANCE = "instance"
CPU = "cpu"
ALL_IMAGES = Index(*np.zeros((2, 12_936), np.int64))  # of Market-1501's train folder, for their number
OF_A_CARD = 0.9  # of a GPU's memory, for all rows together
GRID = tuple(itertools.product((0.3, 0.5), (0.05, 0.07, 0.09, 0.11)))


def _best(case: Case) -> np.ndarray:
    """The published levels at those thresholds of a grid that the truth likes best."""
    found = [chains(case, cst, drm) for cst, drm in GRID]
    return max(found, key=lambda labels: score.score(labels, case.truth)["pairwise_f1"])


ROWS: dict[str, Callable[[Case], np.ndarray] | None] = {
    "none": None,
    INSTANCE: lambda case: case.tracklet,
    "tracklet": lambda case: case.tracklet,
    "level 1": lambda case: Ours(case).levels()["  level 1 alone"],
    "levels 1 and 2": lambda case: Ours(case).levels()["  levels 1 and 2"],
    "published": lambda case: chains(case, 0.2, 0.18),
    "published, best thresholds": _best,
    "ours": lambda case: Ours(case).identities(),
    "oracle": lambda case: case.truth,
}
"""[n] groups of the images that a row learns from, -1: in none; None: nothing is learned."""


@dataclass(frozen=True)
class Study:
    """What all rows share; see the flags. `data` is the benchmark that they are scored on."""

    data: Path
    out: Path
    steps: int
    config: str
    settings: dict[str, Any]
    images: str = ""
    platform: str = CPU

    def folder(self, kind: str, name: str, seed: int) -> Path:
        """Where the `runs` or the `data` of a row lie; `images` names a choice of them that is not the usual one."""
        return self.out / kind / f"{name.replace(',', '').replace(' ', '_')}-{seed}{self.images}"

    def shards(self, name: str, seed: int, known: Callable[[int], Noisy]) -> None:
        """Writes the data set of a row where it is not there; only then the noisy images of the seed are asked for."""
        group, folder = ROWS[name], self.folder("data", name, seed)
        if group is None or self._written(name, seed):
            return
        images = known(seed)
        labels = group(images.case)
        pairs = [(file, int(label)) for file, label in zip(images.files, labels, strict=True) if label >= 0]
        file = self.out / "lists" / f"{folder.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps([{"file_path": path, "id": label} for path, label in pairs]))
        least = 1 if name == INSTANCE else 2
        data_prep.run("annotations", file, folder, annotations={"root": str(images.root)}, min_identity_images=least)

    def commands(self, name: str, seed: int) -> list[list[str]]:
        """How a row is trained and scored, as arguments of Python."""
        run, shards = self.folder("runs", name, seed), self.folder("data", name, seed)
        identity = {"identity": INSTANCE} if name == INSTANCE else {}
        recipe = packaged_configs.load(*self.config.split(":", 1))
        frozen = freeze(recipe, {"data.path": str(shards), **identity, **self.settings})
        score_to = f"--output={run / SCORE}"
        evaluate = ["-m", "cion_jax.evaluate", "--benchmark=market1501", f"--data={self.data}", score_to]
        if ROWS[name] is None:
            size = frozen.views.global_1 if hasattr(frozen, "views") else frozen.image
            network, weights = f"{frozen.model.name}@{size.height}x{size.width}", frozen.init_from
            return [
                [*evaluate, f"--checkpoint=file:{network}={weights}" if weights else f"--checkpoint=random:{network}"]
            ]
        settings = {
            "data.path": shards,
            **identity,
            "seed": seed,
            **schedule(frozen, self.steps),
            "train.steps": self.steps,
        }
        changes = [f"--config.{key}={value}" for key, value in (settings | self.settings).items()]
        return [
            ["-m", "cion_jax.train", f"--config={self.config}", f"--workdir={run}", *changes],
            [*evaluate, f"--checkpoint={run}"],
        ]

    def row(self, name: str, seed: int, cores: Sequence[int], memory: float) -> dict[str, Any]:
        """Trains and scores a row on some cores and with a share of the GPU's memory; returns its line."""
        run, commands, began = self.folder("runs", name, seed), self.commands(name, seed), time.monotonic()
        run.mkdir(parents=True, exist_ok=True)
        for command in commands:
            with (run / "log.txt").open("a") as log:
                done = subprocess.run(
                    [sys.executable, *command],
                    stdout=log,
                    stderr=log,
                    cwd=common.ROOT,
                    env=os.environ | self._environment(memory),
                    preexec_fn=lambda: os.sched_setaffinity(0, cores),
                )
            if done.returncode:
                raise SystemExit(f"row {name!r}, seed {seed}: exit status {done.returncode}; see {run / 'log.txt'}")
        found = json.loads((run / SCORE).read_text())
        return {
            "row": name,
            "seed": seed,
            "steps": found.get("step") or 0,
            **{key: found[key] for key in SCORES},
            "minutes": round((time.monotonic() - began) / 60, 1),
            "cores": len(cores),
            "hardware": common.processor() if self.platform == CPU else common.card(),
            "commit": common.commit(),
            "commands": said(commands),
        }

    def _environment(self, memory: float) -> dict[str, str]:
        if self.platform == CPU:
            return {"JAX_PLATFORMS": CPU}
        return {"JAX_PLATFORMS": f"{self.platform},{CPU}", "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{memory:.3f}"}

    def done(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of the lines that today's commands would repeat."""
        return [
            line for line in lines if self._written(line["row"], line["seed"]) and line["commands"] == self._said(line)
        ]

    def _said(self, line: dict[str, Any]) -> list[str]:
        return said(self.commands(line["row"], line["seed"]))

    def _written(self, name: str, seed: int) -> bool:
        """Whether the data set of a row is there, or none is needed."""
        return ROWS[name] is None or (self.folder("data", name, seed) / METRICS_FILE).is_file()


def schedule(config: Any, steps: int) -> dict[str, int]:
    """Epochs of the same number and length for every row, as if all learned from all images.

    Passes through a row's own images would make the warm-up of a row of few images shorter, and end its schedules
    elsewhere.
    """
    return recipes.length(config, ALL_IMAGES, steps)


def said(commands: list[list[str]]) -> list[str]:
    """Commands as one types them."""
    return [shlex.join(["python", *command]) for command in commands]


def run(study: Study, known: Callable[[int], Noisy], asked: list[tuple[str, int]], jobs: int) -> None:
    """Does what is missing; appends to the study's lines."""
    path, lock = study.out / LINES, threading.Lock()
    free = [part.tolist() for part in np.array_split(sorted(os.sched_getaffinity(0)), jobs)]
    for name, seed in progress(asked, "data sets"):
        study.shards(name, seed, known)

    def one(what: tuple[str, int]) -> None:
        with lock:
            cores = free.pop()
        line = study.row(*what, cores, OF_A_CARD / jobs)
        with lock:
            free.append(cores)
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    with ThreadPoolExecutor(jobs) as pool:
        for _ in progress(pool.map(one, asked), "rows", total=len(asked)):
            pass


def lines(path: Path) -> list[dict[str, Any]]:
    """All results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def drawn(found: list[dict[str, Any]], path: Path) -> None:
    """Draws mAP row by row, a point for every seed and a line at their mean."""
    names = [name for name in ROWS if any(line["row"] == name for line in found)]
    figure = Figure((6.4, 0.5 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    for at, name in enumerate(names):
        values = [100 * line["mAP"] for line in found if line["row"] == name]
        axes.plot(values, [at] * len(values), "o", alpha=0.6)
        axes.plot([np.mean(values)] * 2, [at - 0.3, at + 0.3], color="black")
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="mAP of frozen features, %")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def summary(found: list[dict[str, Any]], against: str = INSTANCE) -> None:
    """Prints mean and standard deviation over seeds, row by row, and what a row gains over that of a name."""
    by_row = defaultdict(list)
    for line in found:
        by_row[line["row"]].append(line)
    base = {line["seed"]: line["mAP"] for line in by_row.get(against, [])}
    table = []
    for name in (name for name in ROWS if name in by_row):
        values = {key: np.array([line[key] for line in by_row[name]]) for key in SCORES}
        cells = (
            f"{100 * v.mean():.2f} +- {100 * v.std(ddof=1):.2f}" if len(v) > 1 else f"{100 * v[0]:.2f}"
            for v in values.values()
        )
        apart = [line["mAP"] - base[line["seed"]] for line in by_row[name] if line["seed"] in base]
        table.append((name, len(by_row[name]), by_row[name][-1]["steps"], *cells, gain(apart) if apart else ""))
    common.table(["learned from", "seeds", "steps", *(f"{key}, %" for key in SCORES), f"mAP over {against}"], table)


def gain(apart: list[float]) -> str:
    """Mean of differences in percent, how often they are above 0, and p of a two-sided paired t test."""
    often = f"{sum(difference > 0 for difference in apart)} of {len(apart)}"
    chance = f", p = {stats.ttest_1samp(apart, 0).pvalue:.3f}" if np.ptp(apart) > 0 else ""
    return f"{100 * np.mean(apart):+.2f} ({often}{chance})"


def share(text: str) -> float:
    """`--share`: more than 0, at most 1."""
    found = float(text)
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0, at most 1")
    return found


def main() -> None:
    """Reads the flags, does what is missing, prints the table."""
    names = {name.replace(",", ""): name for name in ROWS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--onnx", required=True, help="feature extractor of the grouping")
    parser.add_argument("--out", type=Path, required=True, help="where everything lies")
    parser.add_argument("--rows", default=",".join(names), help="names, commas between")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=400, help="of every row, as many images in each")
    parser.add_argument("--rate", type=float, default=1.0, help="of the noise; 0: none")
    parser.add_argument(
        "--held_out",
        type=so_manieth,
        default=0,
        help="score on every so manieth person of the train folder; 0: on the test",
    )
    parser.add_argument("--share", type=share, default=1.0, help="of the people that are not held out, and of the junk")
    parser.add_argument("--against", default=INSTANCE, choices=names, help="row that the others are compared with")
    parser.add_argument("--picture", type=Path, help="PNG of the table")
    parser.add_argument("--config", default="market_small", help="a packaged config, NAME or NAME:ARGUMENT")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change to the config")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="rows at a time")
    parser.add_argument("--platform", default=CPU, choices=(CPU, "cuda"), help="what rows are trained and scored on")
    parser.add_argument("--cache", type=Path, default=Path("runs/denoise_quality"), help="where features are kept")
    args = parser.parse_args()
    common.header("does pre-training learn what it claims?")
    unknown = [name for name in args.rows.split(",") if name not in names]
    if unknown:
        parser.error(f"--rows={','.join(unknown)}: no such row; there are {', '.join(names)}")
    asked = [(names[name], int(seed)) for seed in args.seeds.split(",") for name in args.rows.split(",")]
    settings = dict(cli.change(text, "--set") for text in args.set)
    held = args.out / f"held_out{args.held_out}" if args.held_out else args.data
    images = f"-without{args.held_out}" * bool(args.held_out) + f"-noise{args.rate:g}" * (args.rate != 1)
    images += f"-share{args.share:g}" * (args.share != 1)
    study = Study(held, args.out, args.steps, args.config, settings, images, args.platform)

    def done() -> list[dict[str, Any]]:
        return [line for line in study.done(lines(args.out / LINES)) if (line["row"], line["seed"]) in asked]

    finished = {(line["row"], line["seed"]) for line in done()}
    missing = [what for what in asked if what not in finished]
    if missing:
        market = functools.cache(lambda: Embedded(args.data, f"onnx:{args.onnx}", args.cache))
        apart = functools.cache(lambda: people_apart(market(), args.held_out))
        known = functools.cache(lambda seed: noisy(market(), seed, args.rate, args.out / "images", apart(), args.share))
        if args.held_out and not held.is_dir():
            held_out(market(), apart(), held)
        run(study, known, missing, args.jobs)
    summary(done(), names[args.against])
    if args.picture:
        drawn(done(), args.picture)


if __name__ == "__main__":
    main()

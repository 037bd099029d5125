"""Identities in many worlds (`benchmarks.worlds`): ours without labels against all rivals at their best thresholds.

    python -m benchmarks.denoise_worlds --data=MARKET --onnx=FILE ["--worlds=NAME;..."] [--seeds=0,1] [--part=shown]

A rival sees the truth: of all its thresholds the best in pairwise F1 is taken, in every world and seed anew. What is
done is appended to `worlds.jsonl` in the cache's folder and not done again; the table is of everything asked for.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import common, denoise_rivals, worlds
from benchmarks.denoise_quality import Case, Ours, chains
from benchmarks.worlds import World
from cion_jax.common.progress import progress
from cion_jax.neighbors import score

RAW, OURS = "raw tracklets", "ours, no labels"
DISTANCES = (0.03, 0.06, 0.09, 0.12, 0.18, 0.25, 0.35)


def published(case: Case) -> Iterator[np.ndarray]:
    """The published method at many thresholds."""
    for sigma_cst in (0.3, 0.6):
        for sigma_drm in DISTANCES:
            yield chains(case, sigma_cst, sigma_drm)


def _rival(rival: denoise_rivals.Rival) -> Callable[[Case], Iterable[np.ndarray]]:
    return lambda case: (labels for _, labels in rival.run(case.rows, case.tracklet, case.video))


ROWS: dict[str, Callable[[Case], Iterable[np.ndarray]]] = {
    RAW: lambda case: [case.tracklet],
    OURS: lambda case: [Ours(case).identities()],
    "published": published,
    **{rival.name: _rival(rival) for rival in denoise_rivals.RIVALS if rival.run is not denoise_rivals.hdbscan},
}


def measured(case: Case, name: str) -> dict[str, float]:
    """The best scores of a row."""
    scores = [score.score(labels, case.truth) for labels in ROWS[name](case)]
    return max(scores, key=lambda scored: scored["pairwise_f1"])


def run(asked: list[World], seeds: list[int], sources: worlds.Sources, names: list[str], path: Path) -> list[dict]:
    """Measures what `path` does not have yet; returns all results that were asked for."""
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {(one["world"], one["part"], one["seed"], one["row"]): one for one in done}
    wanted = [(world, seed) for seed in seeds for world in asked]
    for world, seed in progress(wanted, "worlds"):
        missing = [name for name in names if (world.name, world.part, seed, name) not in known]
        if not missing:
            continue
        case = worlds.make(world, sources, seed)
        for name in missing:
            key = (world.name, world.part, seed, name)
            known[key] = dict(zip(("world", "part", "seed", "row"), key, strict=True), **measured(case, name))
            with path.open("a") as file:
                file.write(json.dumps(known[key]) + "\n")
    return [known[world.name, world.part, seed, name] for world, seed in wanted for name in names]


def summary(results: list[dict]) -> None:
    """Prints F1 by world and row (means over seeds), and what the targets ask for."""
    cells = defaultdict(list)
    for one in results:
        cells[one["world"], one["row"]].append(one["pairwise_f1"])
    names = list(dict.fromkeys(one["world"] for one in results))
    rows = list(dict.fromkeys(one["row"] for one in results))
    rivals = [row for row in rows if row not in (RAW, OURS)]
    value = {key: float(np.mean(found)) for key, found in cells.items()}
    best = {name: max((value[name, row] for row in rivals), default=float("nan")) for name in names}
    lines = [(name, *(f"{value[name, row]:.3f}" for row in rows), *_gaps(value, best, name)) for name in names]
    common.table(["pairwise F1", *rows, "to raw", "to the best rival"], lines)
    raw = [value[name, OURS] - value[name, RAW] for name in names]
    ahead = [value[name, OURS] - best[name] for name in names]
    print()
    print(f"to raw tracklets: mean {np.mean(raw):+.3f}, worst {min(raw):+.3f}")
    print(f"to the best rival of each world: mean {np.mean(ahead):+.3f}, worst {min(ahead):+.3f}")
    for row in rows:
        print(f"{row}: mean {np.mean([value[name, row] for name in names]):.3f}")


def _gaps(value: dict, best: dict, name: str) -> tuple[str, str]:
    own = value[name, OURS]
    return f"{own - value[name, RAW]:+.3f}", f"{own - best[name]:+.3f}"


def main() -> None:
    """Reads the flags, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--onnx", required=True, help="feature extractor")
    parser.add_argument("--worlds", default="", help="names, separated by ';'; all unless told")
    parser.add_argument("--rows", default=";".join(ROWS), help="what is run, names separated by ';'")
    parser.add_argument("--part", default=worlds.SHOWN, choices=(worlds.SHOWN, worlds.CHOOSING))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--cache", type=Path, default=Path("runs/denoise_quality"), help="where features are kept")
    args = parser.parse_args()
    listed = worlds.WORLDS if args.part == worlds.SHOWN else worlds.CHOICE
    asked = [world for world in listed if not args.worlds or world.name in args.worlds.split(";")]
    common.header("identities in many worlds")
    sources = worlds.Sources(args.data, args.onnx, args.cache)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    summary(run(asked, seeds, sources, args.rows.split(";"), args.cache / "worlds.jsonl"))


if __name__ == "__main__":
    main()

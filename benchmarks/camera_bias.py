"""Does a network know people, or cameras? What images of a query's own camera cost it.

    python -m benchmarks.camera_bias --data=MARKET --checkpoint=CHECKPOINT [--checkpoint=...]

By Market-1501's protocol no image of the query's own camera is a match: those of its own person are taken out, all
others are of strangers. A network that puts the light of a camera into its features finds these strangers first. The
table has, over all counted queries:

| column | what it is |
|---|---|
| mAP | by the protocol |
| own camera's strangers out | mAP when they are taken out of the gallery, too |
| as many others out | mAP without as many strangers of any camera, drawn at random: a smaller gallery is easier, too |
| nearest stranger of own camera | share of queries whose nearest stranger is of their own camera |
| chance | what it would be if every stranger were as likely to be the nearest |
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import common
from cion_jax.embed import load_extractor
from cion_jax.evaluate import score
from cion_jax.reid import benchmarks
from cion_jax.reid.distances import blocks
from cion_jax.reid.metrics import average_precision, ranks_of
from cion_jax.reid.scored import Scored


@dataclass(frozen=True)
class Query:
    """Average precision in three galleries, whether the nearest stranger is of the query's camera, the chance of it."""

    ap: float
    without_own: float
    without_others: float
    nearest_own: float
    chance: float


def queries(scored: Scored, seed: int = 0) -> list[Query]:
    """All queries that are counted; `seed` draws the strangers that stand in for those of the query's camera."""
    rng = np.random.default_rng(seed)
    query_cameras, camera_G = scored.benchmark.query.camera, scored.benchmark.gallery.camera
    found = []
    for rows, distance_BG in blocks(scored.distances):
        for query, row_G in zip(range(rows.start, rows.stop), distance_BG, strict=True):
            match, junk = scored.pairing.of(query)
            if len(match):
                found.append(measured(row_G, match, junk, camera_G == query_cameras[query], rng))
    return found


def measured(
    row_G: np.ndarray, match: np.ndarray, junk: np.ndarray, own_G: np.ndarray, rng: np.random.Generator
) -> Query:
    """One query from its distances.

    Args:
      row_G: to the gallery.
      match: [M] rising, which images are its matches.
      junk: [J] which images are taken out by the protocol.
      own_G: whether an image is of the query's camera.
      rng: draws strangers.
    """
    stranger = np.setdiff1d(np.arange(len(row_G)), np.concatenate([match, junk]))
    own = stranger[own_G[stranger]]
    others = rng.choice(stranger, len(own), replace=False)

    def ap(out: np.ndarray) -> float:
        return average_precision(ranks_of(row_G, match, np.concatenate([junk, out])))

    nearest = stranger[np.argmin(row_G[stranger])]
    return Query(ap(stranger[:0]), ap(own), ap(others), float(own_G[nearest]), len(own) / len(stranger))


def main() -> None:
    """Scores the checkpoints and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark, named as Market-1501")
    parser.add_argument("--checkpoint", action="append", required=True, help="as cion-evaluate takes it")
    args = parser.parse_args()
    common.header("people, or cameras?")
    benchmark = benchmarks.load("market1501", args.data)
    table = []
    for checkpoint in args.checkpoint:
        found = queries(score(load_extractor(checkpoint), benchmark))
        means = (np.mean([getattr(query, name) for query in found]) for name in Query.__dataclass_fields__)
        table.append((checkpoint, *(f"{100 * mean:.2f}" for mean in means)))
    said = [
        "mAP, %",
        "own camera's strangers out",
        "as many others out",
        "nearest stranger of own camera, %",
        "chance, %",
    ]
    common.table(["network", *said], table)


if __name__ == "__main__":
    main()

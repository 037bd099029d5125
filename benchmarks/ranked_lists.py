"""What a query finds before and after: the nearest images of two networks, side by side, as a picture.

    python -m benchmarks.ranked_lists --data=DIR --before=CHECKPOINT --after=CHECKPOINT --picture=FILE.png

DIR is a benchmark whose files are named as Market-1501's. Nobody picks the queries: they are those at 10, 30, 50, 70
and 90% of the order of the average precision of the network `--after`. The picture holds images of the benchmark: show
it where their terms allow that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cion_jax.common import images
from cion_jax.embed import load_extractor
from cion_jax.evaluate import score
from cion_jax.reid import benchmarks
from cion_jax.reid.analysis import ranked
from cion_jax.reid.benchmarks import Images
from cion_jax.reid.scored import Scored

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
TOP = 10
SIDE = 0.8  # inches of a picture's height; it is half as wide
QUERY, RIGHT, WRONG = "#3b7dd8", "#2f9e75", "#d9534f"


def chosen(scored: Scored) -> list[int]:
    """Numbers of queries at `SHARES` of the order of their average precision."""
    order = scored.scores.valid[np.argsort(scored.scores.ap, kind="stable")]
    return [int(order[int(share * len(order))]) for share in SHARES]


def drawn(networks: dict[str, Scored], queries: list[int], path: Path) -> None:
    """Draws the queries, one row of the nearest for every network, the same person framed green and others red.

    Args:
      networks: by name, all of one benchmark.
      queries: numbers of queries.
      path: PNG to write.
    """
    rows = [(query, name) for query in queries for name in networks]
    figure = Figure((0.5 * SIDE * (TOP + 3), SIDE * 1.25 * len(rows)), layout="constrained")
    for (query, name), row in zip(rows, figure.subplots(len(rows), TOP + 1, squeeze=False), strict=True):
        scored = networks[name]
        of = scored.benchmark
        found = ranked(scored.distances, scored.pairing, query, TOP)
        ap = scored.scores.ap[np.searchsorted(scored.scores.valid, query)]
        _picture(row[0], of.query, query, QUERY, f"{name}\nAP {100 * ap:.0f}%")
        for axes, (number, _, right) in zip(row[1:], found, strict=False):
            _picture(axes, of.gallery, number, RIGHT if right else WRONG)
        for axes in row[1 + len(found) :]:
            axes.axis("off")
    figure.savefig(path, dpi=85, metadata={"Software": None})


def _picture(axes: Axes, part: Images, number: int, color: str, text: str = "") -> None:
    axes.imshow(images.decode(part.paths[number].read_bytes()), aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.set_title(text, fontsize=6)
    for side in axes.spines.values():
        side.set(color=color, linewidth=2.5)


def main() -> None:
    """Scores both networks and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark")
    parser.add_argument("--before", required=True, help="a checkpoint, as cion-evaluate takes it")
    parser.add_argument("--after", required=True, help="another one")
    parser.add_argument("--picture", type=Path, required=True, help="PNG to write")
    args = parser.parse_args()
    benchmark = benchmarks.load("market1501", args.data)
    networks = {name: score(load_extractor(vars(args)[name]), benchmark) for name in ("before", "after")}
    for name, scored in networks.items():
        print(f"{name}: mAP {scored.result['mAP']:.1%}, Rank-1 {scored.result['rank1']:.1%}")
    drawn(networks, chosen(networks["after"]), args.picture)


if __name__ == "__main__":
    main()

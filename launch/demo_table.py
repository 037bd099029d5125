"""Prints what the demo found: `python launch/demo_table.py runs/demo`."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def levels_table(levels: list[dict], people: int) -> Table:
    """Images, identities, noise and agreement with the truth, level by level; `people` were filmed."""
    title = f"denoising: identities found of {people} people"
    table = Table("level", "images", "identities", "noise n_S", "pairwise F1", "BCubed F1", title=title)
    for level in levels:
        scores = [f"{level[name]:.3f}" for name in ("noise", "pairwise_f1", "bcubed_f1")]
        table.add_row(level["name"], f"{level['images']:,}", f"{level['identities']:,}", *scores)
    return table


def backbone_table(before: dict, after: dict) -> Table:
    """Frozen features on people that pre-training never saw."""
    table = Table("frozen features", "mAP", "Rank-1", title="backbone")
    for name, result in (("untrained", before), ("pre-trained", after)):
        table.add_row(name, f"{result['mAP']:.1%}", f"{result['rank1']:.1%}")
    return table


def main(folder: Path) -> None:
    """Prints both tables and the path of the report."""
    files = "street/street.json", "dataset/metrics.json", "before.json", "after.json"
    read = {p: json.loads((folder / p).read_text()) for p in files}
    console = Console()
    console.print(levels_table(read["dataset/metrics.json"]["levels"], read["street/street.json"]["people"]))
    console.print(backbone_table(read["before.json"], read["after.json"]))
    print(f"report with pictures: {(folder / 'dataset/report.html').resolve()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

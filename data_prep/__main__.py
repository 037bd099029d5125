"""Tracklets to identity shards.

    python -m data_prep --source=S --input=DIR --embedder=E --output=OUT [--config.NAME=VALUE ...]

The same command again continues a run that was stopped. Flags of Apache Beam, `--runner=...` and what else it knows,
are handed on to it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from cion_jax.common import cli
from cion_jax.data import records
from data_prep import embedders, sources
from data_prep.config import Config
from data_prep.pipeline import beam, run

_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "data_prep.py"
_settings = cli.define_config(Config, str(_CONFIG))
_SOURCE = flags.DEFINE_string("source", None, f"Format of the input: {', '.join(sources.FORMATS)}.", required=True)
_INPUT = flags.DEFINE_string("input", None, "The input folder (for annotations the JSON file).", required=True)
_EMBEDDER = flags.DEFINE_string(
    "embedder", None, f"Extractor: {', '.join(embedders.KINDS)}. Sources with known identities need none."
)
_OUTPUT = flags.DEFINE_string("output", None, "New folder that becomes the data set.", required=True)


def main(beam_flags: Sequence[str], _: Sequence[str]) -> None:
    """Runs what the flags ask for, on what `beam_flags`, the flags of Apache Beam, ask for."""
    beam.options(beam_flags)
    output = Path(_OUTPUT.value)
    job = run.Job(_SOURCE.value, _INPUT.value, _EMBEDDER.value, output, _settings(), tuple(beam_flags))
    metrics = run.run(job)
    Console(width=110).print(_table(metrics["levels"]))
    selection, rejected = metrics["selection"], sum(metrics["rejected"].values())
    print(f"written: {selection['images']:,} images of {selection['identities']:,} identities; {rejected:,} set aside")
    for name in (records.REPORT_FILE, records.CARD_FILE, records.METRICS_FILE, records.PROVENANCE_FILE):
        print(f"  {output / name}")


def _table(levels: Sequence[Mapping[str, Any]]) -> Table:
    scores = {"noise": "noise n_S", "pairwise_f1": "pairwise F1", "bcubed_f1": "BCubed F1"}
    table = Table("level", "images", "identities", *scores.values())
    for level in levels:
        numbers = [f"{level[name]:.4g}" if name in level else "-" for name in scores]
        table.add_row(level["name"], f"{level['images']:,}", f"{level['identities']:,}", *numbers)
    return table


if __name__ == "__main__":
    sys.argv[1:], BEAM = beam.split_flags(sys.argv[1:], set(flags.FLAGS))
    cli.run(functools.partial(main, BEAM))

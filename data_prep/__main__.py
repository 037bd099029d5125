"""Tracklets to identity shards.

    python -m data_prep --source=S --input=DIR --embedder=E --output=OUT [--config.NAME=VALUE ...] [-- FLAGS OF BEAM]

The same command again continues a run that was stopped; videos whose input has changed since are done again. What
follows `--` is handed on to Apache Beam: `-- --direct_num_workers=2`, `-- --runner=...`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.console import Console
from rich.table import Table

from cion_jax.common import cli
from cion_jax.common.paths import local_path
from cion_jax.data import records
from data_prep import embedders, sources
from data_prep.config import Config
from data_prep.output import rejects

if TYPE_CHECKING:
    from data_prep.pipeline.run import Job

_PLACES = (records.REPORT_FILE, records.CARD_FILE, records.METRICS_FILE, records.PROVENANCE_FILE)


def define_flags() -> Callable[[], Config]:
    """Defines the flags; returns what gives the settings once they are parsed."""
    flags.DEFINE_string("source", None, f"Format of the input: {', '.join(sources.REGISTRY)}.", required=True)
    flags.DEFINE_string("input", None, "The input folder (for annotations the JSON file).", required=True)
    flags.DEFINE_string(
        "embedder", None, f"Extractor: {', '.join(embedders.kinds())}. Sources with known identities need none."
    )
    flags.DEFINE_string(
        "features", None, "Instead of --embedder: .npz or .parquet with `keys` (or paths) of images and `features`."
    )
    flags.DEFINE_string("output", None, "New folder that becomes the data set.", required=True)
    flags.DEFINE_string("cache", None, "Folder of crops and features that runs with other outputs share.")
    flags.DEFINE_bool(
        "update", False, "Writes an output again whose settings or input have changed; what has not is not done again."
    )
    return cli.define_config(Config, "data_prep")


def main(settings: Callable[[], Config], beam_flags: Sequence[str], _: Sequence[str]) -> None:
    """Runs what the flags ask for, on what `beam_flags`, the flags of Apache Beam, ask for."""
    from data_prep.pipeline import beam, run

    beam.options(beam_flags)
    metrics = run.run(_job(settings(), beam_flags))
    output = local_path(flags.FLAGS.output, "--output")
    Console(width=110).print(_table(metrics["levels"]))
    selection, rejected = metrics["selection"], metrics["rejected"]
    print(
        f"written: {selection['images']:,} images of {selection['identities']:,} identities; "
        f"{sum(rejected.values()):,} set aside"
    )
    for line in rejects.told(output, rejected):
        print(f"  {line}")
    for name in _PLACES:
        print(f"  {output / name}")


def run_main() -> None:
    """The command `data_prep`; never returns."""
    settings, beams = define_flags(), list[str]()

    def ours(argv: Sequence[str]) -> list[str]:
        from data_prep.pipeline import beam  # only here: Apache Beam may not be installed

        own, beams[:] = beam.split_flags(argv[1:], set(flags.FLAGS))
        return [argv[0], *own]

    cli.run(functools.partial(main, settings, beams), ours=ours)


def _job(settings: Config, beam_flags: Sequence[str]) -> Job:
    from data_prep.pipeline.run import Job

    given = flags.FLAGS
    return Job(
        given.source,
        str(local_path(given.input, "--input")),
        given.embedder,
        local_path(given.output, "--output"),
        settings,
        tuple(beam_flags),
        features=given.features and str(local_path(given.features, "--features")),
        cache=given.cache and local_path(given.cache, "--cache"),
        update=given.update,
    )


def _table(levels: Sequence[Mapping[str, Any]]) -> Table:
    scores = {"noise": "noise n_S", "pairwise_f1": "pairwise F1", "bcubed_f1": "BCubed F1"}
    table = Table("level", "images", "identities", *scores.values())
    for level in levels:
        numbers = [f"{level[name]:.4g}" if name in level else "-" for name in scores]
        table.add_row(level["name"], f"{level['images']:,}", f"{level['identities']:,}", *numbers)
    return table


if __name__ == "__main__":
    run_main()

"""What `cion-adapt` sees of networks without labels: `python -m benchmarks.adaptation_quality`.

    python -m benchmarks.adaptation_quality --source=market1501 --input=MARKET/bounding_box_train \
        --checkpoint=osnet_x0_25=FILE.onnx --checkpoint=OUT/round1/run [--benchmark=market1501 --data=MARKET]

`--config.NAME=VALUE` are settings of how the input is read, as of `python -m data_prep`.

The tracks and the quality that an adaptation to this input compares its rounds by, of any networks, and how much better
each is than the one before: the 90% interval that decides which is kept. With a benchmark, the frozen mAP beside it.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import flags

import cion_jax
from benchmarks.common import header, table
from cion_jax.adapt import spelled_out
from cion_jax.common import cli
from cion_jax.common.paths import local_path
from cion_jax.rounds import halves, probe
from cion_jax.rounds.probe import Probe
from cion_jax.weights.load import load
from data_prep import sources
from data_prep.config import Config


def rows(measured: Probe, checkpoints: list[str], truth: Callable[[str], str]) -> Iterator[tuple[str, ...]]:
    """Cells of every network, each compared with the one before; `truth` gives the last one."""
    before = None
    for name in checkpoints:
        found = measured.score(measured.features(load(name)))
        better = "{:+.4f} to {:+.4f}".format(*halves.rise(before, found)) if before else ""
        kept = (f"{100 * each['kept']:.1f}" for each in found.operating.values())
        yield name, f"{found.quality:.4f}", better, " ".join(kept), f"{100 * found.rank1:.1f}", truth(name)
        before = found


def main(settings: Callable[[], Config], _: Sequence[str]) -> None:
    """Prints the table."""
    args = flags.FLAGS

    def truth(checkpoint: str) -> str:
        if not args.benchmark:
            return ""
        return f"{100 * cion_jax.evaluate(checkpoint, args.benchmark, args.data)['mAP']:.1f}"

    header("networks, as an adaptation compares them without labels")
    folder = local_path(args.input, "--input")
    source = sources.open(args.source, folder, **sources.options(args.source, settings()))
    with tempfile.TemporaryDirectory() as made:
        measured = probe.opened(Path(made) / "probe.npz", source)
    print(f"{len(set(measured.track.tolist())):,} tracks, {len(measured.jpegs):,} images\n")
    columns = ["network", "quality", "better than the row above by", "kept, %", "other half first, %", "mAP, %"]
    table(columns, rows(measured, [spelled_out(name) for name in args.checkpoint], truth))


if __name__ == "__main__":
    flags.DEFINE_enum("source", None, list(sources.REGISTRY), "Format of the input.", required=True)
    flags.DEFINE_string("input", None, "Folder of videos or crops.", required=True)
    flags.DEFINE_multi_string("checkpoint", None, "NAME=FILE, a folder, or as other commands take it.", required=True)
    flags.DEFINE_string("benchmark", "", "Score the networks on this benchmark, too.")
    flags.DEFINE_string("data", "", "Folder of the benchmark.")
    cli.run(functools.partial(main, cli.define_config(Config, "data_prep")))

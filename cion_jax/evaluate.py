"""Scores a frozen backbone on a benchmark.

    python -m cion_jax.evaluate --checkpoint=WORKDIR --benchmark=market1501 --data=DIR [--output=FILE.json]

`--checkpoint=file:resnet50_ibn=FILE.pth` scores a PyTorch checkpoint (or a safetensors file), `random:resnet18_ibn` an
untrained backbone. Every percentage that is printed, and more, stands in
the JSON file as a share between 0 and 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from cion_jax.common import cli
from cion_jax.common.files import replaceable, write_text
from cion_jax.common.paths import local_path
from cion_jax.embed import (
    backbone_of_flags,
    define_backbone_flags,
    define_overwrite,
    embed_files,
    list_unreadable,
)
from cion_jax.reid import benchmarks, metrics
from cion_jax.reid.distances import METRICS, Between, Distances, ScoreError
from cion_jax.reid.nearest import expand
from cion_jax.reid.rerank import Reranked
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.load import weights_file

RANKS = (1, 5, 10)


def main(_: Sequence[str]) -> None:
    """Embeds queries and gallery, ranks, prints, writes."""
    args = flags.FLAGS
    benchmark = benchmarks.load(args.benchmark, local_path(args.data, "--data"))
    for warning in benchmark.warnings():
        print(warning, file=sys.stderr)
    output = args.output and local_path(args.output, "--output")
    if output:
        inputs = [*benchmark.query.paths, *benchmark.gallery.paths, *weights_file(args.checkpoint)]
        replaceable(output, "--output", args.overwrite, inputs)
    backbone = backbone_of_flags()

    result = evaluate(backbone, benchmark, args.metric, reranked=args.rerank, expansion=args.query_expansion)
    result["checkpoint"] = args.checkpoint
    print(table(result))
    if output:
        write_text(output, json.dumps(result, indent=1) + "\n")


def evaluate(
    backbone: Backbone,
    benchmark: benchmarks.Benchmark,
    metric: str = "cosine",
    *,
    reranked: bool = False,
    expansion: int = 0,
) -> dict[str, Any]:
    """Embeds a benchmark and scores it.

    Args:
      backbone: the model.
      benchmark: what to find where.
      metric: "cosine" or "euclidean".
      reranked: k-reciprocal re-ranking with k1 = 20, k2 = 6, lambda = 0.3.
      expansion: neighbors of alpha query expansion, 0 for none.

    Returns:
      What the JSON file holds, but for the checkpoint: shares, counts, model, protocol.

    Raises:
      ScoreError: there is nothing to score: no match, nothing readable, too few images to re-rank.
    """
    parts = {"query": benchmark.query, "gallery": benchmark.gallery}
    embedded = {part: embed_files(backbone, images.paths, part) for part, images in parts.items()}
    for part, found in embedded.items():
        list_unreadable(found.unreadable, len(parts[part]), part)
    query, gallery = (images.take(embedded[part].kept) for part, images in parts.items())
    features = embedded["query"].features, embedded["gallery"].features
    pairing = metrics.Pairing(query.identity, gallery.identity, query.camera, gallery.camera)
    scores = metrics.evaluate(_distances(*features, metric, reranked, expansion), pairing)
    return {
        "benchmark": benchmark.name,
        "model": backbone.name,
        "step": backbone.step,
        "input_size": backbone.size,
        "mAP": scores.mean_ap,
        "mINP": scores.mean_inp,
        **{f"rank{r}": scores.rank(r) for r in RANKS},
        "metric": metric,
        "rerank": reranked,
        "query_expansion": expansion,
        "queries": len(query),
        "valid_queries": len(scores.valid),
        "gallery": len(gallery),
        "unreadable": {part: found.unreadable for part, found in embedded.items()},
        "junk": {part: images.junk for part, images in parts.items()},
        "unnamed": {part: [path.name for path in images.unnamed] for part, images in parts.items()},
        "protocol": benchmark.protocol,
    }


def table(result: dict[str, Any]) -> str:
    """What a person wants to see of `evaluate`'s result, in percent."""
    names = {"mAP": "mAP", "mINP": "mINP"} | {f"rank{r}": f"Rank-{r}" for r in RANKS}
    step = {0: "untrained", None: "weights of a file"}.get(result["step"], f"step {result['step'] or 0:,}")
    left_out = sum(map(len, result["unreadable"].values())) + sum(map(len, result["unnamed"].values()))
    return "\n".join(
        [
            f"{result['benchmark']}, {result['model']} ({step}), {result['metric']} distance",
            "".join(f"{name:>9}" for name in names.values()),
            "".join(f"{100 * result[name]:9.2f}" for name in names),
            f"{result['valid_queries']:,} of {result['queries']:,} queries counted, "
            f"{result['gallery']:,} gallery images, {left_out} files left out",
        ]
    )


def _distances(query_QD: np.ndarray, gallery_GD: np.ndarray, metric: str, reranked: bool, expansion: int) -> Distances:
    if not len(query_QD) or not len(gallery_GD):
        raise ScoreError(f"got {len(query_QD)} readable queries and {len(gallery_GD)} gallery images")
    if expansion:
        both = expand(np.concatenate([query_QD, gallery_GD]), expansion)
        query_QD, gallery_GD = np.split(both, [len(query_QD)])
    return (Reranked if reranked else Between)(query_QD, gallery_GD, metric)


def _define_flags() -> None:
    define_backbone_flags()
    flags.DEFINE_string("benchmark", "market1501", "Name of the benchmark.")
    flags.DEFINE_string("data", None, "Folder of the benchmark.", required=True)
    flags.DEFINE_string("output", None, "JSON file to write.")
    define_overwrite()
    flags.DEFINE_enum("metric", "cosine", METRICS, "Distance.")
    flags.DEFINE_bool("rerank", False, "Re-rank with k-reciprocal neighbors.")
    flags.DEFINE_integer("query_expansion", 0, "Neighbors of alpha query expansion, 0: none.", lower_bound=0)


if __name__ == "__main__":
    _define_flags()
    cli.run(main)

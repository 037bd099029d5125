"""Scores a frozen backbone, or features that another program made, on benchmarks.

    python -m cion_jax.evaluate --checkpoint=WORKDIR --benchmark=market1501 --data=DIR [--output=FILE.json]
    python -m cion_jax.evaluate --checkpoint=onnx:FILE --benchmark=market1501=DIR,msmt17=DIR --report=DIR
    python -m cion_jax.evaluate --features=FILE.npz --benchmark=folder=DIR --pattern='(?P<id>\\d+)-cam(?P<cam>\\d+).*'

`--checkpoint=file:resnet50_ibn=FILE.pth` scores a PyTorch checkpoint (or a safetensors file), `random:resnet18_ibn` an
untrained backbone. Every percentage that is printed, and more, stands in the JSON file as a share between 0 and 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from cion_jax.common import cli
from cion_jax.common.bounds import between
from cion_jax.common.files import replaceable, write_text
from cion_jax.common.paths import local_path
from cion_jax.common.typed_config import ConfigError
from cion_jax.embed import (
    adapt,
    adaptation_of_flags,
    define_adapt_flags,
    define_extractor_flags,
    define_overwrite,
    embed_files,
    extractor_of_flags,
    list_unreadable,
    stored,
)
from cion_jax.reid import benchmarks, metrics, on_device
from cion_jax.reid.adaptation import Adaptation
from cion_jax.reid.benchmarks import Benchmark, Images
from cion_jax.reid.distances import METRICS, Between, Distances, ScoreError
from cion_jax.reid.feature_file import FeatureFile
from cion_jax.reid.nearest import expand
from cion_jax.reid.rerank import Reranked
from cion_jax.reid.scored import Scored
from cion_jax.reid.unlabeled import camera_name
from cion_jax.weights.extractor import Extractor
from cion_jax.weights.load import weights_file

RANKS = (1, 5, 10)
_MANY = 20  # pictures, all of which are hardly the same one
_COLUMNS = {"mAP": "mAP", "mINP": "mINP"} | {f"rank{r}": f"Rank-{r}" for r in RANKS}


def main(_: Sequence[str]) -> None:
    """Embeds queries and gallery, ranks, prints, writes."""
    args = flags.FLAGS
    chosen = _benchmarks(args.benchmark, args.data, protocol=args.protocol, pattern=args.pattern)
    for warning in (warning for benchmark in chosen for warning in benchmark.warnings()):
        print(warning, file=sys.stderr)
    if (args.checkpoint is None) == (args.features is None):
        raise ConfigError("give either --checkpoint, for features to be made, or --features=FILE, for those of a file")
    features = args.features and local_path(args.features, "--features")
    inputs = [features] if features else weights_file(args.checkpoint)
    inputs += [path for benchmark in chosen for part in (benchmark.query, benchmark.gallery) for path in part.paths]
    inputs += [path for folder in _folders(args.benchmark, args.data) for path in benchmarks.tables(folder)]
    output, report = args.output and local_path(args.output, "--output"), None
    if output:
        replaceable(output, "--output", args.overwrite, inputs)
    if args.report:
        report = local_path(args.report, "--report")
        replaceable(report / "index.html", "--report", args.overwrite, inputs)
        _report()  # before the work, not after it
    extractor = FeatureFile(features) if features else extractor_of_flags()
    how = {"reranked": args.rerank, "expansion": args.query_expansion, "adaptation": adaptation_of_flags(extractor)}

    done = []
    for benchmark in chosen:
        done.append(score(extractor, benchmark, args.metric, **how))
        done[-1].result["checkpoint"] = args.checkpoint or args.features
    results = [scored.result for scored in done]
    print(table(results))
    if output:
        write_text(output, json.dumps(results[0] if len(results) == 1 else results, indent=1) + "\n")
    if report:
        print(f"report: {_report()(report, done)}")


def score(
    extractor: Extractor | FeatureFile,
    benchmark: Benchmark,
    metric: str = "cosine",
    *,
    reranked: bool = False,
    expansion: int = 0,
    adaptation: Adaptation | None = None,
) -> Scored:
    """Embeds a benchmark and scores it.

    Args:
      extractor: the model, or features that are there.
      benchmark: what to find where.
      metric: "cosine" or "euclidean".
      reranked: k-reciprocal re-ranking with k1 = 20, k2 = 6, lambda = 0.3.
      expansion: neighbors of alpha query expansion, 0 for none.
      adaptation: that features go through before anything else; of the benchmark it sees the cameras' numbers.

    Raises:
      AdaptationError: it is of features of another width.
      ScoreError: there is nothing to score: no match, nothing readable, too few images to re-rank.
    """
    query, query_ND, query_lost = _features(extractor, benchmark.query, "query")
    gallery, gallery_ND, gallery_lost = _features(extractor, benchmark.gallery, "gallery")
    query_ND, gallery_ND, adapted = _adapted(extractor, adaptation, (query, gallery), (query_ND, gallery_ND))
    query_QD, gallery_GD = query.pooled(query_ND), gallery.pooled(gallery_ND)
    _check_distinct(gallery_GD)
    distances = _distances(query_QD, gallery_GD, metric, reranked, expansion)
    left = Benchmark(benchmark.name, benchmark.protocol, query, gallery, benchmark.label)
    pairing = metrics.Pairing(query.identity, gallery.identity, query.camera, gallery.camera)
    scores = metrics.evaluate(distances, pairing)
    result = {
        "benchmark": benchmark.name,
        "label": benchmark.label,
        **_model(extractor),
        "mAP": scores.mean_ap,
        "mINP": scores.mean_inp,
        **{f"rank{r}": scores.rank(r) for r in RANKS},
        "tpr_at_fpr": [{"fpr": o.fpr, "tpr": o.tpr, "threshold": o.threshold} for o in scores.operating],
        "metric": metric,
        "rerank": reranked,
        "query_expansion": expansion,
        "adapt": adapted,
        "queries": len(query),
        "valid_queries": len(scores.valid),
        "gallery": len(gallery),
        "unreadable": {"query": query_lost, "gallery": gallery_lost},
        "junk": {"query": query.junk, "gallery": gallery.junk},
        "unnamed": {"query": [p.name for p in query.unnamed], "gallery": [p.name for p in gallery.unnamed]},
        "protocol": benchmark.protocol,
    }
    return Scored(left, pairing, distances, scores, result)


def evaluate(
    extractor: Extractor | FeatureFile, benchmark: Benchmark, metric: str = "cosine", **how: Any
) -> dict[str, Any]:
    """The `result` of `score`: what the JSON file holds, but for the checkpoint."""
    return score(extractor, benchmark, metric, **how).result


def table(results: Sequence[dict[str, Any]]) -> str:
    """What a person wants to see of results of one model, in percent: a line for every benchmark."""
    first = results[0]
    step = {0: "untrained", None: "weights of a file"}.get(first["step"], f"step {first['step'] or 0:,}")
    names = [f"{r['benchmark']} ({r['label']})" if r["label"] else r["benchmark"] for r in results]
    width = max(map(len, [*names, "benchmark"]))
    operating = [f"TPR@{100 * fpr:g}%" for fpr in metrics.FPRS]
    how = f"{first['metric']} distance" + ", re-ranked" * first["rerank"]
    how += f", query expansion of {first['query_expansion']}" if first["query_expansion"] else ""
    how += f", adapted to {first['adapt']['data']}" if first["adapt"] else ", not adapted"
    head = "".join(f"{name:>10}" for name in [*_COLUMNS.values(), *operating])
    lines = [
        f"{first['model']} ({step}), {how}",
        f"{'benchmark':<{width}}{head}   counted of queries, gallery, left out",
    ]
    for name, result in zip(names, results, strict=True):
        shares = [result[column] for column in _COLUMNS] + [point["tpr"] for point in result["tpr_at_fpr"]]
        shares += [float("nan")] * (len(_COLUMNS) + len(operating) - len(shares))
        left_out = sum(map(len, result["unreadable"].values())) + sum(map(len, result["unnamed"].values()))
        counts = f"{result['valid_queries']:,} of {result['queries']:,}, {result['gallery']:,}, {left_out:,}"
        lines.append(f"{name:<{width}}{''.join(f'{100 * share:10.2f}' for share in shares)}   {counts}")
    return "\n".join(lines)


def _features(extractor: Extractor | FeatureFile, images: Images, part: str) -> tuple[Images, np.ndarray, list[str]]:
    """(units that have features, [N, D] of their images, one message for each image that has none)."""
    if isinstance(extractor, FeatureFile):
        found = stored(extractor, images.paths)
    else:
        found = embed_files(extractor, images.paths, part)
    list_unreadable(found.unreadable, len(images.paths), part)
    left = images.take(found.kept)
    if not len(left):
        raise ScoreError(f"nothing to score: 0 readable images of the {part}, of {len(images.paths)}")
    return left, found.features, found.unreadable


def _check_distinct(gallery_GD: np.ndarray) -> None:
    """Raises ScoreError where features tell nobody of many apart; warns where they are few, or some point nowhere."""
    if len(gallery_GD) > 1 and (gallery_GD == gallery_GD[0]).all():
        said = f"the features of all {len(gallery_GD)} images or tracklets of the gallery are the same"
        if len(gallery_GD) >= _MANY:
            raise ScoreError(f"{said}: the network or the file that they come from is broken")
        print(f"warning: {said}", file=sys.stderr)
    if zeros := int((gallery_GD == 0).all(axis=1).sum()):
        print(f"warning: the features of {zeros} of {len(gallery_GD)} in the gallery are all 0", file=sys.stderr)


def _adapted(
    extractor: Extractor | FeatureFile,
    adaptation: Adaptation | None,
    parts: tuple[Images, Images],
    features: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, dict[str, Any] | None]:
    """(features of the query's and of the gallery's images, adapted if they are to be, what was done to them)."""
    if adaptation is None:
        return *features, extractor.about.get("adapt") if isinstance(extractor, FeatureFile) else None
    cameras = [[camera_name(number) for number in images.camera_of_images()] for images in parts]
    unseen = {part: adaptation.unseen(camera) for part, camera in zip(("query", "gallery"), cameras, strict=True)}
    both = adapt(adaptation, np.concatenate(features), cameras[0] + cameras[1], "query and gallery")
    queries = len(features[0])
    return both[:queries], both[queries:], {**adaptation.about(), "unseen": unseen}


def _model(extractor: Extractor | FeatureFile) -> dict[str, Any]:
    if isinstance(extractor, FeatureFile):
        made = extractor.about.get("extractor")
        return {"model": f"features of {extractor.path.name}", "step": None, "input_size": None, "extractor": made}
    return {
        "model": extractor.name,
        "step": extractor.step,
        "input_size": extractor.size,
        "extractor": extractor.digest(),
    }


def _report() -> Callable[[Path, Sequence[Scored]], Path]:
    try:
        from cion_jax.reid.report import write  # only now: it takes Matplotlib and Jinja
    except ImportError as error:
        raise ConfigError(f"--report needs more packages ({error}); pip install 'cion-jax'") from error
    return write


def _distances(query_QD: np.ndarray, gallery_GD: np.ndarray, metric: str, reranked: bool, expansion: int) -> Distances:
    if expansion:
        both = expand(np.concatenate([query_QD, gallery_GD]), expansion)
        query_QD, gallery_GD = np.split(both, [len(query_QD)])
    if reranked:
        return Reranked(query_QD, gallery_GD, metric)
    accelerator = jax.default_backend() != "cpu"  # where it is, NumPy is as fast
    return Between(query_QD, gallery_GD, metric, on_device.product if accelerator else None)


def _benchmarks(chosen: Sequence[str], data: str | None, **options: str | None) -> list[Benchmark]:
    """What --benchmark and --data name: `NAME=DIR` each, or one NAME in the folder --data."""
    if len(chosen) == 1 and "=" not in chosen[0]:
        if data is None:
            raise ConfigError(f"where is {chosen[0]}? Give its folder, as --benchmark={chosen[0]}=DIR or --data=DIR")
        return [benchmarks.load(chosen[0], local_path(data, "--data"), **options)]
    if data is not None or not all("=" in each for each in chosen):
        raise ConfigError(
            f"--benchmark takes NAME with --data=DIR, or NAME=DIR,NAME=DIR without it, got {','.join(chosen)!r}"
            f"{'' if data is None else f' and --data={data}'}"
        )
    parts = [each.partition("=") for each in chosen]
    taken = {name: benchmarks.REGISTRY[name].takes for name, _, _ in parts}
    for option, value in options.items():
        if value is not None and not any(option in takes for takes in taken.values()):
            raise ConfigError(f"none of {', '.join(taken)} has --{option}, got {value!r}; leave it out")
    return [
        benchmarks.load(
            name,
            local_path(folder, "--benchmark"),
            **{key: value for key, value in options.items() if key in taken[name]},
        )
        for name, _, folder in parts
    ]


def _folders(chosen: Sequence[str], data: str | None) -> list[Path]:
    """The folders that --benchmark and --data name, once they are known to be right."""
    return [Path(each.partition("=")[2] or str(data)).expanduser() for each in chosen]


def define_flags() -> None:
    """Defines what the command takes."""
    define_extractor_flags(required=False)
    flags.DEFINE_list("benchmark", ["market1501"], "NAME, in the folder --data; or NAME=DIR,NAME=DIR for several.")
    flags.DEFINE_string("data", None, "Folder of the benchmark.")
    flags.DEFINE_string("protocol", None, "Which of a benchmark's protocols, as train or trainval of msmt17.")
    flags.DEFINE_string(
        "pattern", None, "Regular expression of names with groups id and cam, for the benchmark folder."
    )
    flags.DEFINE_string("features", None, "Score these features, of a .npz or .parquet file, instead of a checkpoint.")
    flags.DEFINE_string("output", None, "JSON file to write.")
    define_overwrite()
    flags.DEFINE_string("report", None, "Folder to write a report into, a page that needs no network.")
    flags.DEFINE_enum("metric", "cosine", METRICS, "Distance.")
    flags.DEFINE_bool("rerank", False, "Re-rank with k-reciprocal neighbors.")
    define_adapt_flags()
    cli.define_number("query_expansion", 0, "Neighbors of alpha query expansion, 0: none.", between(0, 1000))


def run_main() -> None:
    """The command `cion-evaluate`."""
    define_flags()
    cli.run(main)


if __name__ == "__main__":
    run_main()

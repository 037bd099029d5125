"""Pseudo labels compared with the truth, and what they take: an epoch's clustering without the training around it.

    python -m benchmarks.pseudo_labels --data=MARKET --features=FILE
    python -m benchmarks.pseudo_labels --images=100000

FILE is what `cion-embed --input=MARKET` wrote; of it the training images count. Truth serves the scores alone. With
--images the features are made up, 2,048 numbers each, of people with 20 images.
"""

from __future__ import annotations

import dataclasses
import resource
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from cion_jax.data.target import open_target
from cion_jax.neighbors import cosine, score
from cion_jax.reid.feature_file import FeatureFile
from cion_jax.tasks.cluster import labels
from cion_jax.tasks.cluster.config import DbscanConfig, LabelsConfig

FLAGS = flags.FLAGS
WIDTH, LATENT, IMAGES_EACH, NOISE = 2048, 64, 20, 0.55


def made_up(count: int) -> tuple[labels.Sightings, np.ndarray]:
    """Features of `count` images and whose they are; people differ in LATENT directions, images in all."""
    rng = np.random.default_rng(0)
    people = count // IMAGES_EACH
    center = rng.standard_normal((people, LATENT)).astype(np.float32)
    spread = rng.standard_normal((LATENT, WIDTH)).astype(np.float32) / np.sqrt(LATENT)
    truth, rows = rng.integers(0, people, count), np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 4096):
        who = truth[start : start + 4096]
        place = center[who] + NOISE * rng.standard_normal((len(who), LATENT)).astype(np.float32)
        found = place @ spread + 0.5 * rng.standard_normal((len(who), WIDTH)).astype(np.float32)
        rows[start : start + 4096] = cosine.unit(found, np.float32)
    nothing = np.full(count, -1)
    return labels.Sightings(rows, nothing, nothing, nothing), truth


def measured(data: Path, file: Path) -> tuple[labels.Sightings, np.ndarray]:
    """The training images of a benchmark with the features of a file."""
    target = open_target(data)
    if target.truth is None:
        raise SystemExit(f"--data={data}: nothing says who is on its images; give a benchmark as unpacked")
    known = FeatureFile(file)
    found = known.features[known.rows([Path(target.reader.where(i)) for i in range(len(target))])]
    found = cosine.unit(found, np.float32)
    return labels.Sightings(found, target.camera, target.video, target.frame), target.truth


def show(name: str, seen: labels.Sightings, truth: np.ndarray, settings: LabelsConfig) -> None:
    """Prints a row of the table."""
    began, wall = time.process_time(), time.monotonic()
    found = labels.clusters(seen, settings)
    spent, passed = time.process_time() - began, time.monotonic() - wall
    scores = score.score(found, truth)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| {name} | {found.max() + 1} | {np.mean(found < 0):.1%} | {score.adjusted_rand(found, truth):.3f} "
        f"| {scores['pairwise_precision']:.3f} | {scores['pairwise_recall']:.3f} | {scores['pairwise_f1']:.3f} "
        f"| {scores['bcubed_f1']:.3f} | {spent:.1f} | {passed:.0f} | {peak:.2f} |",
        flush=True,
    )


def main(_: object) -> None:
    """Prints the table."""
    seen, truth = made_up(FLAGS.images) if FLAGS.images else measured(Path(FLAGS.data), Path(FLAGS.features))
    print("| method | clusters | outliers | ARI | precision | recall | F1 | BCubed F1 | CPU s | wall s | peak GiB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    settings = LabelsConfig()
    show("shared_neighbors", seen, truth, dataclasses.replace(settings, method="shared_neighbors"))
    for k1 in FLAGS.k1:
        limited = dataclasses.replace(settings.shared_neighbors, k1=int(k1))
        ours = dataclasses.replace(settings, method="shared_neighbors", shared_neighbors=limited)
        show(f"shared_neighbors, k1 {k1}", seen, truth, ours)
    for eps in FLAGS.eps:
        own = DbscanConfig(float(eps))
        show(f"dbscan, eps {eps}", seen, truth, dataclasses.replace(settings, dbscan=own))


if __name__ == "__main__":
    flags.DEFINE_string("data", "", "Market-1501 as unpacked.")
    flags.DEFINE_string("features", "", "File of features of its images.")
    flags.DEFINE_integer("images", 0, "How many made-up images instead.")
    flags.DEFINE_list("k1", [], "Of shared_neighbors: the most neighbors that it may choose, beside its own limit.")
    flags.DEFINE_list("eps", ["0.45", "0.5", "0.55", "0.6", "0.65", "0.7"], "Of DBSCAN.")
    app.run(main)

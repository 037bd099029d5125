"""What becomes of a data set's identities when ever more strangers come in: pairwise F1 against size.

    python -m benchmarks.denoise_size --data=MARKET --onnx=FILE [--sizes=0,10000,100000] [--picture=FILE.png]

The tracklets of Market-1501's train folder, spoilt as in `denoise_quality`, lie among tracklets of people who do not
exist. Their features are drawn from what was fitted to the real ones, per camera: a part that a person has everywhere,
one of each tracklet, one of each image, with full covariances. Each such person has the cameras, tracklets and numbers
of images of a real one drawn at random; every 751 of them are in videos of their own. Only pairs with a real image
count: a stranger in a real person's identity is as wrong as another real person. DBSCAN is shown at the best of its
radii, chosen with the truth, up to `--rival` tracklets of strangers; ours sees no label. Features lie in nameless
files of the folder `--cache`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks import common, denoise_rivals
from benchmarks.denoise_quality import Case, Embedded, Ours, spoilt
from cion_jax.common import room
from cion_jax.neighbors import cosine
from cion_jax.reid.distances import slices

_BLOCK = 2**16  # images drawn at a time


@dataclass(frozen=True)
class Strangers:
    """What features of people are made of; rows of every part are drawn as standard normal ones times it.

    Attributes:
      of_video: [videos, d] mean of every video.
      camera: [videos] int64.
      person: [d, d] what a person looks like everywhere.
      tracklet: [cameras, d, d] what is peculiar to one tracklet.
      image: [cameras, d, d] what is peculiar to one image.
      people: for every real person the videos and the sizes of the tracklets, [t] int64 each.
    """

    of_video: np.ndarray
    camera: np.ndarray
    person: np.ndarray
    tracklet: np.ndarray
    image: np.ndarray
    people: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def fit(cls, clean: Case, camera: np.ndarray) -> Strangers:
        """Estimates the parts by moments: images within tracklets, a person's tracklets in different cameras."""
        count = int(clean.tracklet.max()) + 1
        first = np.unique(clean.tracklet, return_index=True)[1]
        size = np.bincount(clean.tracklet)
        video, truth = clean.video[first], clean.truth[first]
        of_video = cosine.sums(clean.rows, clean.video, len(camera)) / np.bincount(clean.video)[:, None]
        x = clean.rows - of_video[clean.video]
        means = cosine.sums(x, clean.tracklet, count) / size[:, None]
        person = _across_cameras(means, truth, camera[video])
        image, tracklet = [], []
        for own in range(int(camera.max()) + 1):
            here = camera[video] == own
            inside = here[clean.tracklet]
            apart = x[inside] - means[clean.tracklet[inside]]
            image.append(apart.T @ apart / (inside.sum() - here.sum()))
            spread = means[here].T @ means[here] / here.sum()
            tracklet.append(spread - person - image[-1] * (1 / size[here]).mean())
        known = [(video[truth == who], size[truth == who]) for who in np.unique(truth[truth >= 0])]
        roots = [np.stack([_root(covariance) for covariance in part]) for part in (tracklet, image)]
        return cls(of_video, camera, _root(person), roots[0], roots[1], known)

    def draw(self, tracklets: int, rng: np.random.Generator, folder: Path) -> Case:
        """At least so many tracklets, videos numbered from 0, people from 0; rows in a nameless file of the folder."""
        video: list[np.ndarray] = []
        size: list[np.ndarray] = []
        who: list[np.ndarray] = []
        count = 0
        while count < tracklets:
            own = self.people[rng.integers(len(self.people))]
            world = len(video) // len(self.people) * len(self.of_video)
            who.append(np.full(len(own[0]), len(who)))
            video.append(own[0] + world)
            size.append(own[1])
            count += len(own[1])
        of_tracklet = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in (video, size, who)]
        order = np.argsort(of_tracklet[0], kind="stable")
        videos, sizes, whose = (part[order] for part in of_tracklet)
        tracklet = np.repeat(np.arange(len(sizes)), sizes)
        rows = self._rows(videos % len(self.of_video), whose, tracklet, rng, folder)
        return Case(rows, videos[tracklet], tracklet, np.full(len(tracklet), -1), whose[tracklet])

    def _rows(
        self, video: np.ndarray, who: np.ndarray, tracklet: np.ndarray, rng: np.random.Generator, folder: Path
    ) -> np.ndarray:
        """[n, d] float32 unit features, for the videos and people [t] of tracklets and the tracklets [n] of images."""
        width, camera = self.of_video.shape[1], self.camera[video]
        looks = room.on_disk((int(who.max(initial=-1)) + 1, width), np.float32, folder)
        for part in slices(len(looks), _BLOCK):
            looks[part] = rng.standard_normal(looks[part].shape) @ self.person.T
        shown = _drawn(self.tracklet, camera, rng, folder)
        for part in slices(len(shown), _BLOCK):
            shown[part] += looks[who[part]] + self.of_video[video[part]].astype(np.float32)
        rows = _drawn(self.image, camera[tracklet], rng, folder)
        for part in slices(len(rows), _BLOCK):
            rows[part] = cosine.unit(rows[part] + shown[tracklet[part]], np.float32)
        return rows


def _across_cameras(means: np.ndarray, truth: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """[d, d] mean product of a person's tracklets in two cameras: what they have in common."""
    total, pairs = np.zeros((means.shape[1],) * 2), 0
    for who in np.unique(truth[truth >= 0]):
        own = np.flatnonzero(truth == who)
        each = cosine.sums(means[own], camera[own], int(camera.max()) + 1)
        number = np.bincount(camera[own])
        total += np.outer(each.sum(axis=0), each.sum(axis=0)) - each.T @ each
        pairs += number.sum() ** 2 - (number**2).sum()
    return total / pairs


def _root(covariance: np.ndarray) -> np.ndarray:
    """[d, d] r with r r' = the covariance, whose negative parts (it is a difference of estimates) are left out."""
    spread, axes = np.linalg.eigh(covariance)
    return axes * np.sqrt(np.maximum(spread, 0))


def _drawn(roots: np.ndarray, which: np.ndarray, rng: np.random.Generator, folder: Path) -> np.ndarray:
    """[n, d] float32 in a nameless file, row i with the covariance of root which[i]."""
    result = room.on_disk((len(which), roots.shape[1]), np.float32, folder)
    for block in slices(len(which), _BLOCK):
        part, drawn = which[block], result[block]
        for own in np.unique(part):
            standard = rng.standard_normal((int((part == own).sum()), roots.shape[1]), np.float32)
            drawn[part == own] = standard @ roots[own].T.astype(np.float32)
    return result


def among(real: Case, strangers: Case, folder: Path) -> Case:
    """Both, the real ones first, rows in a nameless file of the folder; strangers' truth is -2 and below."""
    video, tracklet = int(real.video.max()) + 1, int(real.tracklet.max()) + 1
    strangers = replace(
        strangers,
        video=strangers.video + video,
        tracklet=strangers.tracklet + tracklet,
        truth=-2 - strangers.truth,
    )

    def both(name: str) -> np.ndarray:
        return np.concatenate([getattr(real, name), getattr(strangers, name)])

    rows = room.on_disk((len(real.rows) + len(strangers.rows), real.rows.shape[1]), np.float32, folder)
    rows[: len(real.rows)] = real.rows
    rows[len(real.rows) :] = strangers.rows
    return Case(rows, both("video"), both("tracklet"), both("frame"), both("truth"))


def score(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of the pairs of images with a real one; truth -1 is nobody, below a stranger."""
    labels = np.where(labels < 0, labels.max(initial=-1) + 1 + np.arange(len(labels)), labels)
    labels = np.unique(labels, return_inverse=True)[1]
    known = truth >= 0
    cells = np.unique(np.stack([labels[known], truth[known]]), axis=1, return_counts=True)[1]
    right, wanted = _pairs(cells), _pairs(np.bincount(truth[known]))
    grouped = _pairs(np.bincount(labels)) - _pairs(np.bincount(labels[truth < -1]))
    precision, recall = right / max(grouped, 1), right / wanted
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


def _pairs(sizes: np.ndarray) -> int:
    return int((sizes.astype(np.int64) * (sizes - 1)).sum()) // 2


def measured(case: Case, rival: bool, folder: Path) -> Iterator[tuple[str, tuple[float, float, float], str, float]]:
    """Names, scores, thresholds and seconds of processor time."""
    start = time.process_time()
    labels = Ours(case, folder).identities()
    yield "ours, no labels", score(labels, case.truth), "", time.process_time() - start
    if not rival:
        return
    start = time.process_time()
    found = [
        (score(labels, case.truth), eps) for eps, labels in denoise_rivals.dbscan(case.rows, case.tracklet, case.video)
    ]
    best, eps = max(found, key=lambda pair: pair[0][2])
    yield "DBSCAN of images, best radius", best, f"{eps:g}", time.process_time() - start


def drawn(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Draws F1 against the number of tracklets in all."""
    figure = Figure((6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", xlabel="tracklets in all", ylabel="pairwise F1 of Market-1501's", ylim=(0, 0.8))
    axes.legend(frameon=False, loc="lower left")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main() -> None:
    """Prints a table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--onnx", required=True, help="feature extractor")
    parser.add_argument("--sizes", default="0,10000,100000", help="tracklets of strangers")
    parser.add_argument("--rival", type=int, default=30_000, help="up to so many of them DBSCAN is measured, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/denoise_quality"), help="where features are kept")
    parser.add_argument("--picture", type=Path, help="PNG of the curves")
    args = parser.parse_args()
    common.header("identities of Market-1501's train folder among strangers")
    market = Embedded(args.data, f"onnx:{args.onnx}", args.cache)
    names = market.source.videos()
    camera = np.unique([name[:2] for name in names], return_inverse=True)[1]  # c1s1 is camera 1, sequence 1
    fitted, real = Strangers.fit(market.clean, camera), spoilt(market.clean, market.junk(args.seed), args.seed, 1)
    curves: dict[str, list[tuple[int, float]]] = {}
    common.table(["strangers' tracklets", "images in all", "", "precision", "recall", "F1", "radius", "CPU s"], [])
    for size in map(int, args.sizes.split(",")):
        case = among(real, fitted.draw(size, np.random.default_rng([args.seed, 3]), args.cache), args.cache)
        tracklets = int(case.tracklet.max()) + 1
        for name, scores, radius, seconds in measured(case, size <= args.rival, args.cache):
            row = f"{size:,}", f"{len(case.rows):,}", name, *(f"{x:.3f}" for x in scores), radius, f"{seconds:.0f}"
            print("| " + " | ".join(row) + " |", flush=True)
            curves.setdefault(name, []).append((tracklets, scores[2]))
    if args.picture:
        drawn(curves, args.picture)


if __name__ == "__main__":
    main()

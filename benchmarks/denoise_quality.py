"""Quality of the identities that data_prep finds in made-up noise.

    python -m benchmarks.denoise_quality --data=MARKET --onnx=FILE

The train folder of Market-1501 with its true tracklets, spoilt with a seed: 10% of the images are moved to another
tracklet of their video, 30% of the tracklets are cut in two, and 5% of junk crops, shifted and blended from train
images, are put into tracklets; and half and twice as much. Rivals, the published method and "best threshold" rows see
the truth: of all their thresholds the best in pairwise F1 is shown. "no labels" rows never see it.

HDBSCAN needs scikit-learn and is left out where that is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks import common, denoise_rivals
from cion_jax.common import room
from cion_jax.common.progress import progress
from cion_jax.neighbors import cosine, linkage, score, search, shared
from cion_jax.neighbors.labels import numbered
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from data_prep import embedders
from data_prep.config import Config
from data_prep.denoise import calibrate, cooccurrence, published, shared_neighbors, sub_tracklets
from data_prep.denoise.settings import Denoising
from data_prep.sources.market1501 import Market1501
from data_prep.types import Reject

MOVED, CUT, JUNK = 0.10, 0.30, 0.05
DEFAULT = Config().denoising
RATES = (0.5, 1.0, 2.0)
SCORES = tuple(f"{kind}_{what}" for kind in ("pairwise", "bcubed") for what in ("precision", "recall", "f1"))


@dataclass(frozen=True)
class Case:
    """Images of a data set, those of a tracklet together, in time order; tracklets of a video together.

    Attributes:
      rows: [n, d] float32 unit features.
      video, tracklet, frame, truth: [n] int64; truth -1: nobody.
      boxed: where in the frame images are is known, so that two on one frame are surely two people.
    """

    rows: np.ndarray
    video: np.ndarray
    tracklet: np.ndarray
    frame: np.ndarray
    truth: np.ndarray
    boxed: bool = False

    def take(self, order: np.ndarray) -> Case:
        """Rows in another order, tracklets numbered by it."""
        tracklet = numbered(self.tracklet[order])
        parts = (self.rows[order], self.video[order], tracklet, self.frame[order], self.truth[order])
        return Case(*parts, boxed=self.boxed)

    def starts(self) -> np.ndarray:
        """First row of every video, and n."""
        return np.searchsorted(self.video, np.arange(self.video[-1] + 2))

    def cooccurring(self) -> Pairs:
        """Pairs of images that cannot show one person."""
        pieces = [np.zeros((2, 0), np.int64)]
        for a, b in itertools.pairwise(self.starts()):
            unknown = np.full((b - a, 4), np.nan)
            pieces.append(
                np.stack(cooccurrence.cooccurring(self.frame[a:b], self.tracklet[a:b], unknown, DEFAULT.cooccurrence))
                + a
            )
        i, j = np.concatenate(pieces, axis=1)
        return i, j


class Market:
    """The train folder, and junk made of it. Rows of `clean` are empty."""

    def __init__(self, data: Path):
        self.source = Market1501(data)
        read = [self.source.read(video)[0] for video in self.source.videos()]
        self.images = [image for images in read for image in images]
        numbers = {name: i for i, name in enumerate(dict.fromkeys((i.video, i.tracklet) for i in self.images))}
        self.clean = Case(
            np.zeros((len(self.images), 0), np.float32),
            np.repeat(np.arange(len(read)), [len(images) for images in read]),
            np.array([numbers[i.video, i.tracklet] for i in self.images]),
            np.array([i.frame for i in self.images]),
            np.array([i.truth for i in self.images]),
        )

    def junk_crops(self, seed: int) -> tuple[Iterator[np.ndarray], np.ndarray]:
        """The most junk that is ever needed, and the image in whose place each was seen."""
        rng = np.random.default_rng([seed, 1])
        host = rng.integers(0, len(self.images), round(JUNK * max(RATES) * len(self.images)))
        return (self._blend(row, rng) for row in host), host

    def _blend(self, row: int, rng: np.random.Generator) -> np.ndarray:
        other = rng.choice(np.flatnonzero(self.clean.video == self.clean.video[row]))
        first, second = self.crop(row), self.crop(other)
        second = cv2.resize(second, first.shape[1::-1])
        share = rng.uniform(0.3, 0.7)
        return (share * _shifted(first, rng) + (1 - share) * _shifted(second, rng)).astype(np.uint8)

    def crop(self, row: int) -> np.ndarray:
        """[h, w, 3] uint8 RGB of one image."""
        ((_, crop),) = self.source.crops([self.images[row]])
        if isinstance(crop, Reject):
            raise OSError(f"{crop.where}: {crop.detail}")
        return crop


class Embedded(Market):
    """The same with features by one embedder, which are kept in the folder `cache`."""

    def __init__(self, data: Path, embedder: str, cache: Path):
        super().__init__(data)
        self.embedder, self.cache = embedders.open(embedder), cache
        cache.mkdir(parents=True, exist_ok=True)
        crops = (self.crop(row) for row in range(len(self.images)))
        self.clean = replace(self.clean, rows=self._embedded("clean", crops))

    def junk(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Features of the junk, and the image in whose place each was seen."""
        crops, host = self.junk_crops(seed)
        return self._embedded(f"junk{seed}", crops), host

    def _embedded(self, name: str, crops: Iterator[np.ndarray]) -> np.ndarray:
        path = self.cache / f"{name}-{self.embedder.digest[:12]}.npy"
        if not path.is_file():
            np.save(path, self.embedder(crops))
        return np.load(path)


def _shifted(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by a third to two thirds of its size both ways; what leaves at one edge enters at the other."""
    down, right = (round(rng.uniform(1 / 3, 2 / 3) * size) for size in crop.shape[:2])
    return np.roll(crop, (down, right), axis=(0, 1))


def spoilt(clean: Case, junk: tuple[np.ndarray, np.ndarray], seed: int, rate: float) -> Case:
    """The noise described above, `rate` times as much."""
    rng = np.random.default_rng([seed, 2])
    count, tracklet = len(clean.rows), clean.tracklet.copy()
    video_of = np.zeros(tracklet.max() + 1, np.int64)
    video_of[clean.tracklet] = clean.video
    for row in rng.choice(count, round(MOVED * rate * count), replace=False):
        others = np.flatnonzero(video_of == clean.video[row])
        others = others[others != clean.tracklet[row]]
        if len(others):
            tracklet[row] = rng.choice(others)
    rows, host = (part[: round(JUNK * rate * count)] for part in junk)
    case = Case(
        np.concatenate([clean.rows, rows]),
        np.concatenate([clean.video, clean.video[host]]),
        np.concatenate([tracklet, tracklet[host]]),
        np.concatenate([clean.frame, clean.frame[host]]),
        np.concatenate([clean.truth, np.full(len(rows), -1)]),
        clean.boxed,
    )
    case = case.take(np.lexsort((case.frame, case.tracklet, case.video)))
    number, more = case.tracklet * 2, rng.permutation(len(video_of))[: round(CUT * rate * len(video_of))]
    size = np.bincount(case.tracklet)
    starts = np.cumsum(size) - size
    for name in more[(more < len(size))]:
        if size[name] > 1:
            number[starts[name] + rng.integers(1, size[name]) : starts[name] + size[name]] += 1
    return replace(case, tracklet=np.unique(number, return_inverse=True)[1])


def spoilt_images(clean: Case, host: np.ndarray, seed: int, rate: float) -> Case:
    """`spoilt`, whose rows [n, 1] are numbers of images: `clean`'s from 0 on, then those of junk seen as `host`."""
    count = len(clean.rows)
    numbers = np.arange(count + len(host), dtype=np.float32)[:, None]
    return spoilt(replace(clean, rows=numbers[:count]), (numbers[count:], host), seed, rate)


class Ours:
    """The default method on one case, with options to switch off."""

    def __init__(self, case: Case, folder: Path | None = None):
        """Nodes' rows lie in a nameless file of the folder, if there is one."""
        self.case, self.cooccurring, self.folder = case, case.cooccurring(), folder
        own = DEFAULT.shared_neighbors
        videos = list(itertools.pairwise(case.starts()))
        local = [
            sub_tracklets.divide(case.rows[a:b], case.tracklet[a:b], own.short_tracklet, own.sub_tracklets)
            for a, b in videos
        ]
        counts = np.cumsum([0, *(number.max() + 1 for number in local)])
        self.node = np.concatenate([number + first for number, first in zip(local, counts[:-1], strict=True)])
        first = np.unique(self.node, return_index=True)[1]
        means = self._rows(counts[-1], case.rows.shape[1])
        for (a, b), number, start, end in zip(videos, local, counts[:-1], counts[1:], strict=True):
            means[start:end] = cosine.unit(cosine.centroids([(case.rows[a:b], number)], end - start))
        boxes = np.full(len(first), case.boxed)
        self.nodes = shared.Nodes(means, np.bincount(self.node), case.video[first], case.tracklet[first], boxes)

    def _rows(self, *shape: int) -> np.ndarray:
        return room.on_disk(shape, np.float32, self.folder) if self.folder else np.zeros(shape, np.float32)

    def identities(self, settings: Denoising = DEFAULT) -> np.ndarray:
        """[n] identities of the images."""
        cooccurring = linkage.between(self.node, self.cooccurring)
        cannot = cooccurring if settings.cannot_link else NO_PAIRS
        own, nodes = settings.shared_neighbors, self.nodes
        if settings.normalize:
            nodes = nodes.normalized(own.shrinkage, own.trust, self._rows(*nodes.rows.shape))
        return shared_neighbors.cluster(nodes, cannot, cooccurring, settings).identity[self.node]

    def at(self, thresholds: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        """Identities at fixed thresholds."""
        for threshold in thresholds:
            own = replace(DEFAULT.shared_neighbors, threshold=float(threshold))
            yield threshold, self.identities(replace(DEFAULT, shared_neighbors=own))

    def levels(self) -> dict[str, np.ndarray]:
        """Identities after levels 1, 2 and 3, and without what level 1 took apart."""
        case, final = self.case, self.identities()
        first, second, count = [], [], 0
        for a, b in itertools.pairwise(case.starts()):
            done = shared_neighbors.levels(case.rows[a:b], case.tracklet[a:b] - case.tracklet[a], final[a:b])
            first.append(np.where(done.round == 0, case.tracklet[a:b], -1))
            second.append(np.where(done.identity >= 0, done.identity + count, -1))
            count += done.identity.max(initial=-1) + 1
        usual = shared_neighbors.usual(case.tracklet, final, int(case.tracklet.max()) + 1)
        return {
            "ours, no labels": final,
            "  level 1 alone": np.concatenate(first),
            "  levels 1 and 2": np.concatenate(second),
            "  without level 1: no image leaves its tracklet": usual[case.tracklet],
        }


def chains(case: Case, sigma_cst: float, sigma_drm: float, cannot_link: bool = False) -> np.ndarray:
    """[n] identities of the published levels 1 to 3 without a range."""
    cooccurring, count = case.cooccurring(), 0
    identity = np.full(len(case.rows), -1)
    for a, b in itertools.pairwise(case.starts()):
        inside = (cooccurring[0] >= a) & (cooccurring[0] < b)
        cannot = (cooccurring[0][inside] - a, cooccurring[1][inside] - a) if cannot_link else NO_PAIRS
        local = case.tracklet[a:b] - case.tracklet[a]
        own = published.levels(case.rows[a:b], local, sigma_cst, sigma_drm, cannot).identity
        identity[a:b] = np.where(own >= 0, own + count, -1)
        count += own.max(initial=-1) + 1
    means = cosine.centroids([(case.rows, identity)], count)
    cannot = linkage.between(identity, cooccurring) if cannot_link else NO_PAIRS
    linked = search.identities(means, sigma_drm, count, cannot)
    return np.where(identity >= 0, linked[identity], -1)


def calibrated(case: Case) -> tuple[float, float]:
    """sigma_cst and sigma_drm without labels."""
    cooccurring, samples = case.cooccurring(), []
    for a, b in itertools.pairwise(case.starts()):
        inside = (cooccurring[0] >= a) & (cooccurring[0] < b)
        pairs = cooccurring[0][inside] - a, cooccurring[1][inside] - a
        samples.append(calibrate.sample(case.rows[a:b], case.tracklet[a:b] - case.tracklet[a], pairs))
    found = calibrate.thresholds(
        calibrate.joined(samples, DEFAULT.calibration.max_distances, np.random.default_rng(0)), DEFAULT.calibration
    )
    assert found is not None
    return found


def measured(case: Case) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows of the table: what was run, and its scores."""

    def of(labels: np.ndarray) -> dict[str, float]:
        return score.score(labels, case.truth)

    def best(found: Iterable[tuple[float, np.ndarray]]) -> dict[str, float]:
        scored = [(threshold, of(labels)) for threshold, labels in found]
        threshold, scores = max(scored, key=lambda pair: pair[1]["pairwise_f1"])
        return {**scores, "threshold": float(threshold)}

    yield "raw tracklets", of(case.tracklet)
    grid = itertools.product((0.3, 0.5), (0.05, 0.07, 0.09, 0.11))
    yield "paper, published thresholds", of(chains(case, 0.2, 0.18))
    yield "paper, best thresholds", best((drm, chains(case, cst, drm)) for cst, drm in grid)
    for rival in denoise_rivals.RIVALS:
        if rival.run is not denoise_rivals.hdbscan or importlib.util.find_spec("sklearn"):
            yield f"{rival.name}, best threshold", best(rival.run(case.rows, case.tracklet, case.video))
    thresholds = calibrated(case)
    yield "paper + calibration, no labels", of(chains(case, *thresholds))
    yield "paper + calibration + cannot-link, no labels", of(chains(case, *thresholds, cannot_link=True))
    ours = Ours(case)
    for name, labels in ours.levels().items():
        yield name, of(labels)
    for option, settings in (
        ("cannot_link", replace(DEFAULT, cannot_link=False)),
        ("normalize", replace(DEFAULT, normalize=False)),
        ("calibrate", replace(DEFAULT, calibrate=False)),
    ):
        yield f"  without {option}", of(ours.identities(settings))
    yield "ours, best threshold", best(ours.at(np.arange(0.6, 1.21, 0.1)))


def main() -> None:
    """Prints one table per rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--onnx", required=True, help="feature extractor")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--cache", type=Path, default=Path("runs/denoise_quality"), help="where features are kept")
    args = parser.parse_args()
    common.header("quality of identities, Market-1501 train with made-up noise")
    market = Embedded(args.data, f"onnx:{args.onnx}", args.cache)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for rate in map(float, args.rates.split(",")):
        rows: dict[str, list[dict[str, float]]] = defaultdict(list)
        for seed in progress(seeds, f"rate {rate}"):
            for name, scores in measured(spoilt(market.clean, market.junk(seed), seed, rate)):
                rows[name].append(scores)
        _print(rate, len(seeds), rows)


def _print(rate: float, seeds: int, rows: dict[str, list[dict[str, float]]]) -> None:
    print(f"\n{MOVED * rate:.0%} moved, {CUT * rate:.0%} cut, {JUNK * rate:.1%} junk; mean of {seeds} seeds\n")
    columns = ["", *(name.replace("_", " ") for name in SCORES), "std of F1", "threshold"]
    table = []
    for name, found in rows.items():
        values = np.array([[scores[score] for score in SCORES] for scores in found])
        thresholds = sorted({f"{scores['threshold']:.3g}" for scores in found if "threshold" in scores})
        table.append((name, *(f"{v:.3f}" for v in values.mean(0)), f"{values[:, 2].std():.3f}", " ".join(thresholds)))
    common.table(columns, table)


if __name__ == "__main__":
    main()

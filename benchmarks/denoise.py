"""Time and memory of denoising at the size of SYNTH-PEDES: 4.8 million images, 312,000 tracklets, 20,000 videos.

    python -m benchmarks.denoise --folder=DIR [--share=0.05] [--flags=--direct_num_workers=2]

Made-up features, 512 wide, in half precision, are put into the work folder of a run, one memory-mapped file per video,
as the first stage leaves it. From there on it is the program itself that runs, by default the published method and
thresholds: levels 1 and 2 in Beam, level 3 with a range of 1,000 tracklets and without any, noise and scores of all
levels, selection and provenance; `--preset=cion_jax` takes the other. The folder needs 6 GB for the whole and is
emptied afterwards.

`--limit=8` forbids the process more than 8 GiB that are not backed by a file: it dies rather than take more.

Every fifth tracklet shows a person seen before, half of them less than 1,000 tracklets ago; 5% of the images lie in
another tracklet of their video and 2% show nobody. Peaks are of resident memory, mapped files included, whose pages the
system may take back at any time, and of what is left without these; of Beam's workers the largest is added. The floor
of a level is the time that reading its features once, and its multiply-adds, would take one core of this machine; both
speeds are measured first. Beside other work, processor time says more than seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar
from unittest import mock

import numpy as np

from benchmarks import common
from cion_jax.common import room
from cion_jax.common.progress import progress
from cion_jax.neighbors import cosine, linkage, normalization, reciprocal, search, shared
from data_prep.config import PRESETS, Config
from data_prep.denoise import cross_video
from data_prep.denoise.levels import Levels
from data_prep.denoise.method import METHODS
from data_prep.denoise.published import Published
from data_prep.denoise.settings import Thresholds
from data_prep.pipeline import per_video
from data_prep.pipeline.aggregate import aggregate
from data_prep.pipeline.image_table import ImageTable
from data_prep.pipeline.run import Job, each_video
from data_prep.pipeline.thresholds import calibrated
from data_prep.pipeline.workdir import Work
from data_prep.types import Image

IMAGES, TRACKLETS, VIDEOS, WIDTH = 4_800_000, 312_000, 20_000, 512
SEEN_BEFORE, RECENT, STRAY, JUNK = 0.2, 1000, 0.05, 0.02
COMMON, TRACKLET, IMAGE = 0.7, (0.2, 0.7), 0.5  # lengths of what makes up a feature, beside the person's 1
PARTS = (  # of the default's clustering
    (normalization, "learn"),
    (shared, "nearest"),
    (reciprocal, "distributions"),
    (shared, "overlaps"),
    (linkage, "average"),
)
SAMPLE = 4096  # centroids whose links are found by comparing them with all others
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What one stage took: seconds, also of processor time, peak GiB resident and without files, floors in seconds."""

    name: str
    seconds: float
    processor: float
    peak: float
    own: float = 0.0
    read: float = 0.0
    multiply: float = 0.0


@dataclass(frozen=True)
class Speed:
    """One core of this machine: bytes read per second and float32 multiply-adds per second."""

    read: float
    multiply: float

    @classmethod
    def measure(cls) -> Speed:
        """Sums a gigabyte; multiplies tiles as level 3 does."""
        memory, tile = np.ones(2**27), np.ones((1024, WIDTH), np.float32)
        read = common.median_seconds(memory.sum, 3)
        multiply = common.median_seconds(lambda: tile @ tile.T, 20)
        return cls(memory.nbytes / read, 1024 * 1024 * WIDTH / multiply)


def people(tracklets: int, rng: np.random.Generator) -> np.ndarray:
    """[tracklets] int64: whom every tracklet shows."""
    person = np.arange(tracklets)
    again = np.flatnonzero(rng.random(tracklets) < SEEN_BEFORE)
    again = again[again > 0]
    reach = np.where(rng.random(len(again)) < 0.5, np.minimum(again, RECENT), again)
    for late, back in zip(again.tolist(), rng.integers(1, reach + 1).tolist(), strict=True):
        person[late] = person[late - back]
    return person


def generate(work: Work, share: float) -> list[str]:
    """Writes references, features and rejects of all videos; returns their keys."""
    rng = np.random.default_rng(0)
    videos, tracklets = round(VIDEOS * share), round(TRACKLETS * share)
    person = people(tracklets, rng)
    shared = COMMON * _directions(1, rng)
    bounds = np.linspace(0, tracklets, videos + 1).round().astype(int)
    names = [f"{video:05d}" for video in range(videos)]
    for name, first, end in zip(progress(names, "making features"), bounds, bounds[1:], strict=False):
        _write(work, name, *_video(person[first:end], shared, np.random.default_rng([1, int(name)])))
    return names


def _video(person: np.ndarray, shared: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """[m, WIDTH] unit features, [m] tracklets and [m] true people of a video whose tracklets show `person` [t]."""
    count = len(person)
    tracklet = np.repeat(np.arange(count), rng.poisson(IMAGES / TRACKLETS - 1, count) + 1)
    shown = np.where(rng.random(len(tracklet)) < STRAY, rng.integers(0, count, len(tracklet)), tracklet)
    looks = _looks(person) + rng.uniform(*TRACKLET, (count, 1)) * _directions(count, rng)
    rows = looks[shown] + shared + IMAGE * _directions(len(tracklet), rng)
    nobody = rng.random(len(tracklet)) < JUNK
    rows[nobody] = shared + _directions(nobody.sum(), rng)
    return cosine.unit(rows).astype(np.float16), tracklet, np.where(nobody, -1, person[shown])


def _looks(person: np.ndarray) -> np.ndarray:
    """[n, WIDTH] of length 1, a function of each person's number."""
    return cosine.unit(np.stack([np.random.default_rng([2, p]).standard_normal(WIDTH) for p in person]))


def _write(work: Work, video: str, rows: np.ndarray, tracklet: np.ndarray, truth: np.ndarray) -> None:
    images = [
        Image(f"{video}/{t:05d}/{i:06d}.jpg", video, f"{t:05d}", i, f"{video}/{t:05d}/{i:06d}.jpg", None, who)
        for i, (t, who) in enumerate(zip(tracklet.tolist(), truth.tolist(), strict=True))
    ]
    np.save(work.file(video, "npy"), rows)
    per_video.write_table(work.file(video, "arrow"), per_video.references(images, [-1] * len(images)))


def _directions(count: int, rng: np.random.Generator) -> np.ndarray:
    return cosine.unit(rng.standard_normal((count, WIDTH)))


def measured(
    name: str, call: Callable[[], T], read: float = 0, multiply: float = 0, workers: bool = False
) -> tuple[T, Measured]:
    """Runs a stage; see `Measured`. Its children's memory counts only with `workers`: any other child is a fork of this
    process by a library, ScaNN's import for one, and for a moment as large as this process itself."""
    ctypes.CDLL(None).malloc_trim(0)  # gives back what is free; ScaNN leaves gigabytes of it
    start, busy = time.perf_counter(), _processor_seconds()
    with Watch() as watch:
        result = call()
    took = time.perf_counter() - start, _processor_seconds() - busy
    child = workers * _largest_child_gib()
    done = Measured(name, *took, watch.peak + child, watch.own + child, read, multiply)
    print(
        f"  {name}: {done.seconds:.1f} s, of the processor {done.processor:.1f} s, "
        f"{done.peak:.1f} GiB, without files {done.own:.1f} GiB",
        flush=True,
    )
    return result, done


class Watch:
    """Peaks of this process while it is open, looked at ten times a second: GiB resident, and those without files."""

    def __init__(self) -> None:
        self.peak = self.own = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text().split()
            whole, own = (int(status[status.index(name) + 1]) / 2**20 for name in ("VmRSS:", "RssAnon:"))
            self.peak, self.own = max(self.peak, whole), max(self.own, own)
            if self._over.wait(0.1):
                return

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def each_call(parts: Iterable[tuple[ModuleType, str]], done: list[Measured]) -> Iterator[None]:
    """In here, calls of these functions are measured as stages of their own, wherever they come from."""
    with contextlib.ExitStack() as stack:
        for module, name in parts:
            stack.enter_context(mock.patch.object(module, name, _watched(name, getattr(module, name), done)))
        yield


def _watched(name: str, function: Callable[..., T], done: list[Measured]) -> Callable[..., T]:
    def call(*args: object, **options: object) -> T:
        result, took = measured(f"of it: {name}", lambda: function(*args, **options))
        done.append(took)
        return result

    return call


def _processor_seconds() -> float:
    """Of this process and its finished children."""
    each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in each)


def _largest_child_gib() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def run(folder: Path, share: float, preset: str, flags: list[str], speed: Speed) -> Iterator[Measured]:
    """Denoises `share` of the whole, stage by stage."""
    config = Config(preset=preset)
    job = Job("tracklets", str(folder), None, folder / f"{preset}{share}", config, tuple(flags))
    work = Work(job.output)
    work.folder.mkdir(parents=True)
    videos = generate(work, share)
    table, done = measured("references read", lambda: ImageTable.load(work, False, config.cooccurrence, videos))
    yield done
    images = len(table.table)
    once = images * WIDTH * 2 / speed.read
    calibration, done = measured("distances sampled", lambda: calibrated(table, config), once)
    yield done
    thresholds, method = calibration.thresholds, METHODS[config.denoising.method]
    by_links = isinstance(method, Published)
    _, done = measured(
        method.stage,
        lambda: each_video(job, work, videos, thresholds),
        once,
        images * WIDTH / speed.multiply if by_links else 0,  # one product of every image with a mean
        workers=True,
    )
    yield done
    if by_links:
        yield from published(table, thresholds, once, speed)
    parts: list[Measured] = []
    with each_call(() if by_links else PARTS, parts):
        found, done = measured(
            "clustering, noise, scores, selection", lambda: aggregate(table, config, thresholds), 3 * once
        )
    yield done
    yield from parts
    for level in found.levels:
        print(
            "  " + ", ".join(f"{name} {level[name]:.6g}" for name in ("images", "identities", "noise", "pairwise_f1"))
        )
    shutil.rmtree(job.output)


def published(table: ImageTable, thresholds: Thresholds, once: float, speed: Speed) -> Iterator[Measured]:
    """Level 3 alone, with its range and without; reading all features takes `once` seconds at least."""
    identity, done = measured("levels read", lambda: saved_identities(table))
    yield done
    count = int(identity.max()) + 1
    means, done = measured("centroids", lambda: cosine.centroids(table.labeled(identity), count), once)
    yield done
    floors = count * WIDTH * 4 / speed.read, count * thresholds.r_s * WIDTH / speed.multiply
    linked, done = measured(
        f"level 3, r_s = {thresholds.r_s}",
        lambda: cross_video.link(means, thresholds.sigma_drm, thresholds.r_s),
        *floors,
    )
    print(f"  {count:,} identities of level 2, {linked.max() + 1:,} of level 3", flush=True)
    yield done
    yield unlimited("level 3, no range", means, thresholds.sigma_drm)


def saved_identities(table: ImageTable) -> np.ndarray:
    """[N] identities of level 2, as the stage before left them."""
    kept = (Levels(**table.kept(video, Published.keeps)) for video in range(len(table.videos)))
    return table.levels(kept).identity


def unlimited(name: str, means: np.ndarray, threshold: float) -> Measured:
    """Links centroids without a range by their nearest neighbors, and says how many exact links that found."""

    def linked() -> tuple[np.ndarray, np.ndarray]:
        i, j = np.concatenate([np.stack(pairs) for pairs in search.near_links(means, threshold)], axis=1)
        return i * len(means) + j, search.components(len(means), [(i, j)])

    (links, group), done = measured(name, linked)
    some = np.random.default_rng(3).choice(len(means), min(SAMPLE, len(means)), replace=False)
    i, j = np.concatenate([np.stack(pairs) for pairs in search.around(means, some, threshold)], axis=1)
    found = np.isin(np.minimum(i, j) * len(means) + np.maximum(i, j), links)
    print(f"  {group.max() + 1:,} identities; recall of {len(found):,} exact links: {found.mean():.4f}", flush=True)
    return done


def million(count: int, folder: Path) -> Iterator[Measured]:
    """Links made-up centroids without a range: what the limit of memory is about. They lie on disk, as in a run."""
    rng = np.random.default_rng(0)
    person, means = people(count, rng), room.on_disk((count, WIDTH), np.float64, folder)
    for first in range(0, count, 10_000):
        looks = _looks(person[first : first + 10_000])
        means[first : first + len(looks)] = looks + 0.4 * _directions(len(looks), rng)
    yield unlimited(f"{count:,} centroids, no range", means, Config(preset="paper").thresholds().sigma_drm)


def main() -> None:
    """Prints one table for every share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="new folder for the features")
    parser.add_argument("--share", default="0.25,0.5,1", help="of 4.8 million images; several are run one by one")
    parser.add_argument("--preset", default="paper", choices=PRESETS, help="the method")
    parser.add_argument("--centroids", type=int, default=0, help="link so many centroids instead")
    parser.add_argument("--flags", default="", help="of Apache Beam, such as --flags=--direct_num_workers=2")
    parser.add_argument("--limit", type=float, default=0, help="GiB of memory, files not counted; 0: none")
    args = parser.parse_args()
    if args.limit:
        resource.setrlimit(resource.RLIMIT_DATA, (round(args.limit * 2**30),) * 2)
    common.header("denoising at the size of SYNTH-PEDES")
    speed = Speed.measure()
    print(f"one core reads {speed.read / 1e9:.1f} GB/s and does {speed.multiply / 1e9:.0f} G multiply-adds/s\n")
    if args.centroids:
        args.folder.mkdir(parents=True, exist_ok=True)
        _print(million(args.centroids, args.folder))
        return
    for share in map(float, args.share.split(",")):
        print(f"share {share}: {round(IMAGES * share):,} images", flush=True)
        _print(run(args.folder, share, args.preset, args.flags.split(), speed))


def _print(stages: Iterable[Measured]) -> None:
    rows = [
        (
            s.name,
            *(f"{x:.1f}" for x in (s.seconds, s.processor, s.peak, s.own)),
            *(f"{floor:.2f}" if floor else "" for floor in (s.read, s.multiply)),
        )
        for s in stages
    ]
    common.table(
        [
            *("stage", "seconds", "of the processor", "peak GiB", "without files"),
            *("floor: reading, s", "floor: multiply-adds, s"),
        ],
        rows,
    )


if __name__ == "__main__":
    main()

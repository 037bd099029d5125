"""Worlds to denoise: cut from Market-1501's train folder and from the synthetic street, spoilt, each from a seed.

What identities are made of differs from one data set to the next: how many people, how many images of each, how many
cameras, whether anybody is seen twice. A rule that was fitted to one data set shows it here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.denoise_quality import Case, Embedded, spoilt
from cion_jax.neighbors import cosine
from cion_jax.neighbors.labels import numbered
from data_prep import embedders
from data_prep.config import MotConfig
from data_prep.sources.mot import Mot
from data_prep.synthetic.street import StreetConfig, generate
from data_prep.types import Reject

THINNED = 100  # images of one tracklet, as data_prep thins it
CHOOSING, SHOWN = "choosing", "shown"


@dataclass(frozen=True)
class World:
    """One world.

    Attributes:
      name: of its row.
      people: how many, drawn with the seed; 0: all there are.
      rate: of the noise of `denoise_quality.spoilt`; 0: none.
      cameras: how many, drawn with the seed.
      images: of a tracklet at most, evenly taken; 0: all.
      one_tracklet: of a person and camera; a camera is then one video.
      everywhere: only people whom every camera saw.
      shared: False: everybody is seen in one video only.
      frames: tracklets are made this long, along the way between their images; 0: as they are.
      uniforms: one person and their nearest look-alikes, instead of anybody.
      timed: co-occurrence is known.
      features: "osnet", "color", or "noisy" (OSNet's with noise added to it).
      switched: share of the tracklets that swap what follows with another of their video, at a place drawn for each.
      street: seed, people and videos of a synthetic street to take instead of Market-1501.
      part: which people and seeds; constants are chosen on `CHOOSING`, tables are of `SHOWN`.
    """

    name: str
    people: int = 0
    rate: float = 0
    cameras: int = 6
    images: int = 0
    one_tracklet: bool = False
    everywhere: bool = False
    shared: bool = True
    frames: int = 0
    uniforms: bool = False
    timed: bool = True
    features: str = "osnet"
    switched: float = 0
    street: tuple[int, int, int] | None = None
    part: str = SHOWN


_TWO = World("", cameras=2, images=5, one_tracklet=True, everywhere=True, timed=False)

WORLDS = (
    World("751 people, clean"),
    World("751 people", rate=1),
    World("751 people, double noise", rate=2),
    World("400 people, 3 images a tracklet", 400, 0.5, images=3),
    World("400 people, no times", 400, 1, timed=False),
    World("100 people", 100, 1),
    World("30 people, clean", 30),
    World("30 people", 30, 1),
    World("8 people, 2 cameras", 8, 1, cameras=2),
    World("8 people, long tracks", 8, 0.5, frames=100),
    World("30 people, long tracks", 30, 0, cameras=3, frames=60),
    World("30 people, long tracks, noise", 30, 1, cameras=2, frames=60),
    World("1 camera, 30 people", 30, 1, cameras=1),
    World("1 camera, 400 people", 400, 0.5, cameras=1),
    replace(_TWO, name="2 cameras, one tracklet each, all people, clean"),
    replace(_TWO, name="2 cameras, one tracklet each, all people", rate=1),
    replace(_TWO, name="2 cameras, one tracklet each, 100 people", people=100, rate=1),
    World("2 cameras, 100 people", 100, 1, cameras=2),
    World("nobody seen twice, 100 people, clean", 100, shared=False),
    World("nobody seen twice, 100 people", 100, 1, shared=False),
    World("uniforms, 100 people, clean", 100, uniforms=True),
    World("uniforms, 30 people", 30, 1, uniforms=True),
    World("color, 400 people, clean", 400, features="color"),
    World("color, 100 people", 100, 1, features="color"),
    replace(_TWO, name="color, 2 cameras, one tracklet each, 200 people", people=200, features="color"),
    World("noisy features, 400 people", 400, 1, features="noisy"),
    World("street, color", 0, features="color", street=(0, 120, 16)),
    World("street, color, 40 people", 40, features="color", street=(0, 120, 16)),
)

CHOICE = tuple(
    replace(world, part=CHOOSING)
    for world in (
        World("375 people", 375, 1),
        World("375 people, clean", 375),
        World("60 people", 60, 1),
        World("12 people, 3 cameras", 12, 0.5, cameras=3),
        World("20 people, long tracks", 20, 0.5, cameras=3, frames=40),
        World("1 camera, 60 people", 60, 1, cameras=1),
        replace(_TWO, name="2 cameras, one tracklet each, all people, clean"),
        replace(_TWO, name="2 cameras, one tracklet each, all people", rate=1),
        replace(_TWO, name="2 cameras, one tracklet each, 60 people", people=60, rate=0.5),
        World("nobody seen twice, 80 people", 80, 0.5, shared=False),
        World("uniforms, 60 people", 60, 0.5, uniforms=True),
        World("noisy features, 200 people", 200, 0.5, features="noisy"),
        World("noisy features, 2 cameras, 100 people", 100, 1, cameras=2, features="noisy"),
        World("20 people, long tracks, switched", 20, 0.5, cameras=3, frames=40, switched=0.3),
        World("40 people, long tracks", 40, 0.5, cameras=3, frames=60),
        World("40 people, long tracks, switched", 40, 0.5, cameras=3, frames=60, switched=0.3),
        World("10 people, long tracks", 10, 0.5, cameras=2, frames=100),
        World("10 people, long tracks, switched", 10, 0.5, cameras=2, frames=100, switched=0.3),
        World("street of 60, color", features="color", street=(11, 60, 10)),
        World("street of 100, color", features="color", street=(12, 100, 10)),
        World("street of 30, color", features="color", street=(13, 30, 6)),
        World("street of 150, color", features="color", street=(14, 150, 12)),
    )
)


class Sources:
    """Features of all images, made once and kept in a folder."""

    def __init__(self, data: Path, onnx: str, cache: Path):
        self.market = Embedded(data, f"onnx:{onnx}", cache)
        self.color = Embedded(data, "color", cache)
        self.cache = cache
        videos = self.market.source.videos()
        self.camera = np.array([int(video[1 : video.index("s")]) for video in videos])

    def clean(self, world: World) -> tuple[Case, np.ndarray]:
        """All images of the source of a world, and the camera of every video."""
        if not world.street:
            return (self.color if world.features == "color" else self.market).clean, self.camera
        return self._street(*world.street)

    def junk(self, world: World, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Features of junk crops, and the image in whose place each was seen."""
        return (self.color if world.features == "color" else self.market).junk(seed)

    def _street(self, seed: int, people: int, videos: int) -> tuple[Case, np.ndarray]:
        path, folder = self.cache / f"street{seed}.npz", self.cache / f"street{seed}"
        if not folder.is_dir():
            generate(folder, StreetConfig(people=people, videos=videos, benchmark_people=0, seed=seed), 1)
        source = Mot(folder / "videos", settings=MotConfig(first_frame=1))
        read = [_thinned(source.read(video)[0]) for video in source.videos()]
        if not path.is_file():
            found = [list(source.crops(images)) for images in read]
            rows = {image.key: crop for some in found for image, crop in some if not isinstance(crop, Reject)}
            features = embedders.open("color")(rows.values())
            np.savez(path, keys=np.array(list(rows)), rows=features)
        known = np.load(path)
        at = {key: row for row, key in enumerate(known["keys"].tolist())}
        images = [(video, image) for video, some in enumerate(read) for image in some if image.key in at]
        case = Case(
            known["rows"][[at[image.key] for _, image in images]],
            np.array([video for video, _ in images]),
            numbered(np.array([f"{video} {image.tracklet}" for video, image in images])),
            np.array([image.frame for _, image in images]),
            np.array([-1 if image.truth is None else image.truth for _, image in images]),
            boxed=True,
        )
        return case, np.array([int(video[1 : video.index("s")]) for video in source.videos()])


def make(world: World, sources: Sources, seed: int) -> Case:
    """The world of one seed."""
    rng = np.random.default_rng([seed, 3])
    clean, camera = sources.clean(world)
    if world.features == "noisy":
        clean = replace(clean, rows=_noisy(clean.rows, np.random.default_rng([seed, 4])))
    kept = _cut(world, clean, camera, rng)
    case = clean
    if world.one_tracklet:
        person = camera[clean.video] * (int(clean.truth.max()) + 2) + clean.truth
        case = replace(clean, video=camera[clean.video], tracklet=numbered(person))
    if world.images:
        kept = kept[_evenly(case.tracklet[kept], world.images)]
    kept = kept[np.lexsort((case.frame[kept], case.tracklet[kept], case.video[kept]))]
    junk = (np.zeros((0, clean.rows.shape[1]), np.float32), np.zeros(0, np.int64))
    if world.rate:
        rows, host = sources.junk(world, seed)
        place = np.full(len(clean.rows), -1)
        place[kept] = np.arange(len(kept))
        there = place[host] >= 0
        junk = rows[there], place[host[there]]
    part = _renumbered(case, kept)
    if world.frames:
        part, first = _stretched(part, world.frames, rng)
        junk = junk[0], first[junk[1]]
    if world.switched:
        part, place = _switched(part, world.switched, rng)
        junk = junk[0], place[junk[1]]
    found = spoilt(part, junk, seed, world.rate) if world.rate else part
    return found if world.timed else replace(found, frame=np.full(len(found.frame), -1))


def _cut(world: World, clean: Case, camera: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images of the cameras and people of a world, in order."""
    cameras = rng.permutation(np.unique(camera))[: world.cameras]
    inside = np.isin(camera[clean.video], cameras)
    half = (clean.truth % 2 == 0) == (world.part == CHOOSING)
    everybody = np.unique(clean.truth[inside & (clean.truth >= 0)])
    people = np.unique(clean.truth[inside & half & (clean.truth >= 0)])
    if world.part == SHOWN and not 0 < world.people <= len(people):
        people = everybody
    if world.everywhere:
        seen = [np.unique(clean.truth[camera[clean.video] == one]) for one in cameras]
        people = people[np.all([np.isin(people, some) for some in seen], axis=0)]
    count = min(world.people or len(people), len(people))
    chosen = _alike(clean, people, count, rng) if world.uniforms else rng.permutation(people)[:count]
    inside &= np.isin(clean.truth, chosen) | ((clean.truth < 0) & (world.people == 0))
    if not world.shared:
        for person in chosen:
            own = np.flatnonzero(inside & (clean.truth == person))
            inside[own[clean.video[own] != rng.choice(clean.video[own])]] = False
    return np.flatnonzero(inside)


def _alike(clean: Case, people: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A person and the count - 1 whose means are nearest."""
    number = np.where(np.isin(clean.truth, people), np.searchsorted(people, clean.truth), -1)
    means = cosine.unit(cosine.centroids([(clean.rows, number)], len(people)))
    return people[np.argsort(-means @ means[rng.integers(len(people))], kind="stable")[:count]]


def _evenly(label: np.ndarray, most: int) -> np.ndarray:
    """Rows of [n] such that every label has at most so many, evenly spread, in order."""
    kept = []
    for name in np.unique(label):
        own = np.flatnonzero(label == name)
        kept.append(own[np.unique(np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int))])
    return np.sort(np.concatenate(kept))


def _renumbered(case: Case, kept: np.ndarray) -> Case:
    """Some rows in their order, videos and tracklets numbered anew."""
    part = case.take(kept)
    return replace(part, video=np.unique(part.video, return_inverse=True)[1])


def _stretched(case: Case, frames: int, rng: np.random.Generator) -> tuple[Case, np.ndarray]:
    """Every tracklet made `frames` long: its images are way points; and the first new row of every old one."""
    order: list[np.ndarray] = []
    rows, first = [], np.zeros(len(case.rows), np.int64)
    for own in np.split(np.arange(len(case.rows)), np.flatnonzero(np.diff(case.tracklet)) + 1):
        at = np.linspace(0, len(own) - 1, frames)
        low = np.floor(at).astype(int)
        share = (at - low)[:, None]
        between = case.rows[own[low]] * (1 - share) + case.rows[own[np.minimum(low + 1, len(own) - 1)]] * share
        jitter = rng.standard_normal(between.shape) * 0.3 / np.sqrt(between.shape[1])
        first[own] = sum(len(part) for part in order) + np.searchsorted(low, np.arange(len(own)))
        order.append(own[low])
        rows.append(cosine.unit(between + jitter, np.float32))
    whole = np.concatenate(order)
    step = np.concatenate([np.arange(frames)] * len(order))
    return replace(case.take(whole), rows=np.concatenate(rows), frame=case.frame[whole] * frames + step), first


def _switched(case: Case, share: float, rng: np.random.Generator) -> tuple[Case, np.ndarray]:
    """Swaps the ends of a share of every video's tracklets, in pairs; also returns where every row went."""
    tracklet = case.tracklet.copy()
    rows = np.split(np.arange(len(tracklet)), np.flatnonzero(np.diff(tracklet)) + 1)
    video_of = case.video[[own[0] for own in rows]]
    for video in np.unique(video_of):
        names = rng.permutation(np.flatnonzero(video_of == video))
        for first, second in names[: round(share * len(names) / 2) * 2].reshape(-1, 2):
            for name, other in ((first, second), (second, first)):
                tracklet[rows[name][round(len(rows[name]) * rng.uniform(0.2, 0.8)) :]] = other
    order = np.lexsort((case.frame, tracklet, case.video))
    return replace(case, tracklet=tracklet).take(order), np.argsort(order)


def _noisy(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of 0.6 of the features' length."""
    noise = rng.standard_normal(rows.shape, np.float32) * np.float32(0.6 / np.sqrt(rows.shape[1]))
    return cosine.unit(rows + noise, np.float32)


def _thinned(images: list) -> list:
    """Images of one video, at most `THINNED` of a tracklet."""
    kept = []
    for _, some in itertools.groupby(images, key=lambda image: image.tracklet):
        own = list(some)
        kept += [own[i] for i in np.unique(np.linspace(0, len(own) - 1, min(THINNED, len(own))).round().astype(int))]
    return kept

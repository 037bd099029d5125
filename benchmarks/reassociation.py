"""Does a network find people again after an interruption? `python -m benchmarks.reassociation`, on real video.

    python -m benchmarks.reassociation --videos=FOLDER --checkpoint=osnet_x0_25=FILE.pth --checkpoint=OUT/export

Every true track is cut in two in time, and the other half is looked for among the halves of all tracks of all videos:
by the mean feature of a half, and by the two images that are farthest apart in time. Each checkpoint is measured as it
is and with what `--adapt` learns from the tracks without labels (a video is a camera). Intervals are those of 1,000
draws of tracks with replacement.

A network that is adapted to these videos must not have been told that the halves belong together. `--cut=FOLDER` writes
the videos with every track cut in two, to adapt to:

    python -m benchmarks.reassociation --videos=FOLDER --cut=CUT
    python -m cion_jax.adapt --source=mot --input=CUT --checkpoint=osnet_x0_25=FILE.pth --output=OUT --steps=60
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks.common import header, table
from cion_jax.adapt import spelled_out
from cion_jax.common import cli
from cion_jax.common.errors import UserError
from cion_jax.common.paths import local_path
from cion_jax.neighbors.cosine import unit
from cion_jax.reid.adaptation import learn
from cion_jax.weights.load import load
from data_prep import sources
from data_prep.types import Image, Reject, Source

VIDEOS = flags.DEFINE_string("videos", None, "Folder of videos with true tracks, as --source=mot reads it.")
CHECKPOINTS = flags.DEFINE_multi_string("checkpoint", None, "NAME=FILE, a folder, or as other commands take it.")
CUT = flags.DEFINE_string("cut", None, "Folder to write the videos to, with every track cut in two; no more is done.")
IMAGES = flags.DEFINE_integer("images", 16, "Of a track at most, evenly in time.", lower_bound=2)
DRAWS = 1000


@dataclass(frozen=True)
class Tracks:
    """Images of people in time order within their track.

    Attributes:
      crops: [h, w, 3] uint8 RGB each.
      track: [N] int number of the track.
      video: [N] names.
    """

    crops: list[np.ndarray]
    track: np.ndarray
    video: list[str]


def read(source: Source, most: int) -> Tracks:
    """All tracks of two images or more, `most` images of each."""
    crops: list[np.ndarray] = []
    track: list[int] = []
    video: list[str] = []
    for number, (name, some) in enumerate(pair for each in source.videos() for pair in _tracks(source, each, most)):
        crops += some
        track += [number] * len(some)
        video += [name] * len(some)
    return Tracks(crops, np.array(track), video)


def _tracks(source: Source, video: str, most: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    rows = sorted(source.read(video)[0], key=lambda image: (image.tracklet, image.frame))
    chosen: list[Image] = []
    for _, some in groupby(rows, lambda image: image.tracklet):
        track = list(some)
        places = np.unique(np.linspace(0, len(track) - 1, most).round().astype(int))
        chosen += [track[place] for place in places] if len(track) > 1 else []
    found = [(image, crop) for image, crop in source.crops(chosen) if not isinstance(crop, Reject)]
    found.sort(key=lambda pair: (pair[0].tracklet, pair[0].frame))
    for _, pairs in groupby(found, lambda pair: pair[0].tracklet):
        crops = [crop for _, crop in pairs]
        if len(crops) > 1:
            yield video, crops


def cut(videos: Path, output: Path) -> None:
    """Writes videos whose track t is 2 t in its first half, in time, and 2 t + 1 in its second.

    Raises:
      UserError: no video has true tracks.
    """
    texts = sorted([*videos.glob("*/gt.txt"), *videos.glob("*/gt/gt.txt")])
    if not texts:
        raise UserError(f"--videos={videos}: expected true tracks, VIDEO/gt.txt or VIDEO/gt/gt.txt, found none")
    for text in texts:
        folder, written = videos / text.relative_to(videos).parts[0], output / text.relative_to(videos)
        written.parent.mkdir(parents=True)
        for part in folder.iterdir():
            if part not in (text, text.parent):
                (output / folder.name / part.name).symlink_to(part.resolve())
        rows = [line.split(",") for line in text.read_text("utf-8").splitlines()]
        frames = defaultdict(list)
        for frame, track, *_ in rows:
            frames[track].append(int(frame))
        middle = {track: sorted(own)[len(own) // 2] for track, own in frames.items()}
        halves = ([frame, str(2 * int(t) + (int(frame) >= middle[t])), *rest] for frame, t, *rest in rows)
        written.write_text("".join(f"{','.join(row)}\n" for row in halves), "utf-8")


def means(features_ND: np.ndarray, track_N: np.ndarray) -> np.ndarray:
    """[2 T, d] of length 1: the mean of a track's first half, then of its second, track after track."""
    x_ND = unit(features_ND)
    rows = (np.flatnonzero(track_N == track) for track in np.unique(track_N))
    return unit(np.stack([x_ND[half].mean(0) for own in rows for half in np.split(own, [len(own) // 2])]))


def ends(features_ND: np.ndarray, track_N: np.ndarray) -> np.ndarray:
    """[2 T, d] of length 1: a track's first image, then its last, track after track."""
    rows = (np.flatnonzero(track_N == track) for track in np.unique(track_N))
    return unit(features_ND)[[place for own in rows for place in (own[0], own[-1])]]


def ranks(halves_HD: np.ndarray) -> np.ndarray:
    """[H] rank of every half's other one (2 t and 2 t + 1 belong together) among all but itself, 1 for the nearest."""
    similarity_HH = halves_HD @ halves_HD.T
    np.fill_diagonal(similarity_HH, -np.inf)
    every = np.arange(len(halves_HD))
    other_H = similarity_HH[every, every ^ 1]
    return 1 + (similarity_HH > other_H[:, None]).sum(1)


def told(rank_H: np.ndarray) -> tuple[str, str]:
    """Rank-1 and mean reciprocal rank in percent, with intervals over tracks."""
    by_track = rank_H.reshape(-1, 2)
    drawn = np.random.default_rng(0).integers(0, len(by_track), (DRAWS, len(by_track)))

    def said(values_T2: np.ndarray) -> str:
        low, high = np.quantile(values_T2[drawn].mean((1, 2)), (0.05, 0.95))
        return f"{values_T2.mean():.1%} ({low:.0%} to {high:.0%})"

    return said(by_track == 1), said(1 / by_track)


def rows(checkpoint: str, tracks: Tracks) -> Iterator[tuple[str, ...]]:
    """Cells of a network: as it is, and adapted."""
    backbone = load(spelled_out(checkpoint))
    features_ND = backbone(tracks.crops)
    origin = {"data": "the videos", "model": backbone.name, "extractor": backbone.digest()}
    learned = learn(features_ND, tracks.video, tracks.track, origin)
    for name, x_ND in (("as it is", features_ND), ("--adapt", learned(features_ND, tracks.video))):
        found = (cell for halves in (means, ends) for cell in told(ranks(halves(x_ND, tracks.track))))
        yield checkpoint, name, *found


def main(_: Sequence[str]) -> None:
    """Prints the table, or writes what `--cut` asks for."""
    videos = local_path(VIDEOS.value or "", "--videos")
    if CUT.value:
        cut(videos, local_path(CUT.value, "--cut"))
        return
    header("Found again: every track cut in two, the other half among all")
    tracks = read(sources.open("mot", videos), IMAGES.value)
    people = len(np.unique(tracks.track))
    print(f"{people} tracks of {len(set(tracks.video))} videos, {len(tracks.crops):,} images; 90% intervals\n")
    columns = ["network", "", "halves: Rank-1", "reciprocal rank", "first and last image: Rank-1", "reciprocal rank"]
    table(columns, (row for checkpoint in CHECKPOINTS.value or () for row in rows(checkpoint, tracks)))


if __name__ == "__main__":
    flags.mark_flag_as_required("videos")
    flags.mark_flags_as_mutual_exclusive(["checkpoint", "cut"], required=True)
    cli.run(main)

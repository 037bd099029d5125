"""Crops of some tracks of the input, kept to measure every round's network on the same ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cion_jax.common import images
from cion_jax.common.errors import UserError
from cion_jax.common.files import finished
from cion_jax.common.progress import progress
from cion_jax.data.records import damage
from cion_jax.rounds import halves
from data_prep.types import Image, Reject, Source

VIDEOS, TRACKS, IMAGES = 24, 1600, 4  # at most: of the input, evenly; of all; of a track, evenly in time
FEWEST = 8  # tracks without which nothing can be said


class ProbeError(UserError):
    """The input has too few tracks to measure anything."""


@dataclass(frozen=True)
class Probe:
    """Crops in time order within their track.

    Attributes:
      jpegs: of every crop.
      track, video: [N] int64 of every crop.
      frame: [N] int64 time within the video, -1 where the source does not know times.
      names: [N] "video/tracklet" of every crop.
    """

    jpegs: tuple[bytes, ...]
    track: np.ndarray
    video: np.ndarray
    frame: np.ndarray
    names: tuple[str, ...]

    def pictures(self) -> Iterator[np.ndarray]:
        """[h, w, 3] uint8 RGB of every crop."""
        return (images.decode(jpeg) for jpeg in self.jpegs)

    def features(self, backbone: Callable[[Iterable[np.ndarray]], np.ndarray]) -> np.ndarray:
        """[N, d] of a network."""
        return backbone(progress(self.pictures(), "embedding the probe", len(self.jpegs)))

    def score(self, features_ND: np.ndarray) -> halves.Score:
        """What `halves` says of them."""
        return halves.score(features_ND, self.track, self.video, self.frame)


def opened(path: Path, source: Source) -> Probe:
    """The probe in a file, which is made of the source where it is not there yet.

    Raises:
      ProbeError: fewer than `FEWEST` tracks of two readable images.
    """
    if not path.is_file():
        chosen = _chosen(source)
        _write(
            path, source.timed, list(progress(_crops(source, chosen), "cutting out the probe's tracks", len(chosen)))
        )
    with damage(path, "delete it; it is made again"), np.load(path, allow_pickle=False) as file:
        ends, data = file["ends"], file["data"].tobytes()
        jpegs = tuple(data[a:b] for a, b in itertools.pairwise([0, *ends.tolist()]))
        return Probe(jpegs, file["track"], file["video"], file["frame"], tuple(file["names"].tolist()))


def _chosen(source: Source) -> list[list[Image]]:
    """Tracks of two images or more: of some videos those in the middle, so that many are there at the same time."""
    videos = _even(source.videos(), VIDEOS)
    most, chosen = TRACKS // len(videos), []
    for video in videos:
        tracks = (list(some) for _, some in itertools.groupby(source.read(video)[0], lambda image: image.tracklet))
        usable = sorted((track for track in tracks if len(track) > 1), key=lambda track: track[0].frame)
        begin = max(len(usable) - most, 0) // 2
        chosen += [_even(track, IMAGES) for track in usable[begin : begin + most]]
    return chosen


def _even(things: Sequence, most: int) -> list:
    if len(things) <= most:
        return list(things)
    return [things[i] for i in np.linspace(0, len(things) - 1, most).round().astype(int)]


def _crops(source: Source, tracks: list[list[Image]]) -> Iterator[list[tuple[Image, bytes]]]:
    """The tracks with JPEGs; one with fewer than two readable crops is left out."""
    for _, some in itertools.groupby(tracks, lambda track: track[0].video):
        wanted = list(some)
        found: dict[str, bytes] = {}
        for image, crop in source.crops([image for track in wanted for image in track]):
            if not isinstance(crop, Reject):
                found[image.key] = images.encode_jpeg(crop, images.QUALITY)
        for track in wanted:
            kept = [(image, found[image.key]) for image in track if image.key in found]
            if len(kept) > 1:
                yield kept


def _write(path: Path, timed: bool, tracks: list[list[tuple[Image, bytes]]]) -> None:
    if len(tracks) < FEWEST:
        raise ProbeError(
            f"the input has {len(tracks)} tracks of two images or more that can be read, expected at least {FEWEST} "
            "to measure whether the network gets better; give more video"
        )
    rows = [(number, image, jpeg) for number, track in enumerate(tracks) for image, jpeg in track]
    videos = {name: number for number, name in enumerate(dict.fromkeys(image.video for _, image, _ in rows))}
    with finished(path) as part, part.open("wb") as file:
        np.savez(
            file,
            data=np.frombuffer(b"".join(jpeg for *_, jpeg in rows), np.uint8),
            ends=np.cumsum([len(jpeg) for *_, jpeg in rows]),
            track=np.array([number for number, *_ in rows]),
            video=np.array([videos[image.video] for _, image, _ in rows]),
            frame=np.array([image.frame if timed else -1 for _, image, _ in rows]),
            names=np.array([f"{image.video}/{image.tracklet}" for _, image, _ in rows]),
        )

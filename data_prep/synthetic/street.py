"""The synthetic street: videos of walking people with an imperfect tracker's boxes, and a benchmark of other people.

    python -m data_prep.synthetic.street --output=DIR [--people=120] [--videos=16] [--seed=0] ...

writes

    DIR/street.json                          the settings
    DIR/videos/<name>/<name>.mp4             a video; c2s1 is camera 2, sequence 1
                      tracks.txt             what the tracker says, in MOTChallenge's layout
                      truth.txt              the same lines with the person in place of the track, -1 for nobody
                      seqinfo.ini
    DIR/benchmark/{query,bounding_box_test}  crops of people who are in none of the videos, named as in Market-1501

`--source=mot --input=DIR/videos` reads the one, `--benchmark=market1501 --data=DIR/benchmark` the other. The same
settings give the same text and the same frames, however many processes work on them.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from cion_jax.common import cli, images
from cion_jax.common.bounds import SEED, SHARE, between, positive
from cion_jax.common.paths import local_path
from cion_jax.common.progress import progress
from cion_jax.common.typed_config import ConfigError
from data_prep.sources import mottext
from data_prep.sources.frames import cut
from data_prep.synthetic.people import Person, draw_person
from data_prep.synthetic.scene import Camera, Look, make_camera, make_look
from data_prep.synthetic.tracker import NOBODY, Mistakes, Tracked, track
from data_prep.synthetic.walk import Sighting, film, make_walks
from data_prep.types import Reject

CODEC = "mp4v"
BENCHMARK_SHARE = 0.6  # of the benchmark's people pass each camera, at least
BENCHMARK_MISTAKES = Mistakes(switches=0, fragments=0, ghosts=0.3, drifts=0, misses=0, jitter=0.04)
BENCHMARK_CROPS = 6  # of one person and camera, one of them a query
JUNK_SHARE = 0.1  # badly cut crops beside the good ones
# What a random stream decides: default_rng([seed, stream, number]).
PERSON, CAMERA, CAST, HOUR, WALK, NOISE, TRACKER, DEAL, CROPS = range(9)

_SIDE, _FRAMES, _MEAN = 16384, 10**6, between(0, 1000)  # pixels; of a video; events of one person
_LIMITS = {
    **{"people": between(1, 10**6), "videos": between(1, 10**5), "cameras": between(2, 10**4)},
    **{"people_per_video": between(1, 10**4), "seconds": positive(10**6), "fps": positive(1000)},
    **{"width": between(160, _SIDE), "height": between(90, _SIDE), "benchmark_people": between(0, 10**6)},
    **{"seed": SEED, "switches": SHARE, "drifts": SHARE, "misses": SHARE, "fragments": _MEAN, "ghosts": _MEAN},
    **{"jitter": between(0, 10)},
}


@dataclass(frozen=True)
class StreetConfig(Mistakes):
    """Settings of a street; the tracker's rates are those of `Mistakes`.

    Attributes:
      people: in the videos, numbered from 1.
      videos: how many; they are dealt to the cameras in turn.
      cameras: how many, at least 2.
      people_per_video: at most that many different people walk through each video.
      seconds: length of a video.
      fps: frames per second.
      width, height: of a frame, pixels. People are 62 to 150 of 640 pixels high.
      benchmark_people: other people, numbered on from `people`; 0 writes no benchmark.
      seed: decides everything that is drawn.
    """

    people: int = 120
    videos: int = 16
    cameras: int = 6
    people_per_video: int = 24
    seconds: float = 40.0
    fps: float = 5.0
    width: int = 640
    height: int = 360
    benchmark_people: int = 40
    seed: int = 0

    @property
    def frames(self) -> int:
        """Frames of one video."""
        return round(self.seconds * self.fps)

    def validate(self) -> None:
        """Raises ConfigError where no street can have these settings."""
        for name, bounds in _LIMITS.items():
            if getattr(self, name) not in bounds:
                raise ConfigError(f"{name} must be {bounds}, got {getattr(self, name)}")
        if self.width % 2 or self.height % 2:
            raise ConfigError(f"a frame of {self.width} x {self.height} cannot be encoded; give even numbers")
        if not 1 <= self.frames <= _FRAMES:
            raise ConfigError(
                f"{self.seconds} seconds at {self.fps} frames per second are no video of 1 to {_FRAMES:,} frames"
            )


def generate(
    output: Path,
    config: StreetConfig,
    processes: int | None = None,
) -> None:
    """Writes a street; see the module's docstring for the files.

    Args:
      output: a folder that is empty or not there yet.
      config: settings.
      processes: that work on it, one per CPU where None; has no influence on what is written.

    Raises:
      ConfigError: impossible settings, or an output folder that is not empty.
    """
    config.validate()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} is not an empty folder; give another --output or remove it")
    output.mkdir(parents=True, exist_ok=True)
    (output / "street.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    jobs: list[tuple] = [(write_video, output, config, v) for v in range(config.videos)]
    if config.benchmark_people:
        jobs += [(write_benchmark, output, config, c) for c in range(config.cameras)]
    for _ in progress(_run(jobs, processes or os.cpu_count() or 1), "videos", len(jobs)):
        pass


def write_video(output: Path, config: StreetConfig, index: int) -> None:
    """Renders and tracks one video of the street."""
    camera_index, sequence = index % config.cameras, index // config.cameras
    name = f"c{camera_index + 1}s{sequence + 1}"
    folder = output / "videos" / name
    folder.mkdir(parents=True)
    everybody = range(1, config.people + 1)
    cast = deal(everybody, config.videos, config.people_per_video, _rng(config, DEAL, 0))[index]
    sightings: list[Sighting] = []
    size = (config.width, config.height)
    writer = cv2.VideoWriter(str(folder / f"{name}.mp4"), cv2.VideoWriter.fourcc(*CODEC), config.fps, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write {folder / name}.mp4 with codec {CODEC}; is the disk full?")
    for frame, seen in _shoot(config, camera_index, sequence, cast):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        sightings += seen
    writer.release()
    lines = track(sightings, config, size, _rng(config, TRACKER, index))
    mottext.write(folder / "tracks.txt", [line.box for line in lines])
    mottext.write(folder / "truth.txt", [line.box._replace(track=line.person) for line in lines])
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={name}\nframeRate={config.fps:g}\nseqLength={config.frames}\n"
        f"imWidth={config.width}\nimHeight={config.height}\n"
    )


def write_benchmark(output: Path, config: StreetConfig, camera_index: int) -> None:
    """Renders one more sequence of a camera with the benchmark's people, and cuts queries and gallery from it."""
    sequence = -(-config.videos // config.cameras)
    others = range(config.people + 1, config.people + config.benchmark_people + 1)
    passing = max(round(BENCHMARK_SHARE * len(others)), -(-2 * len(others) // config.cameras))  # each person two
    cast = deal(others, config.cameras, passing, _rng(config, DEAL, 1))[camera_index]
    step, rng = max(1, round(config.fps)), _rng(config, CROPS, camera_index)
    frames, sightings = {}, []
    for frame, (picture, seen) in enumerate(_shoot(config, camera_index, sequence, cast), 1):
        if frame % step == 0:
            frames[frame] = picture
            sightings += seen
    lines = track(sightings, BENCHMARK_MISTAKES, (config.width, config.height), rng)
    for folder in ("query", "bounding_box_test"):
        (output / "benchmark" / folder).mkdir(parents=True, exist_ok=True)
    lines = [line for line in lines if line.box.frame in frames]
    for number, (folder, person, line) in enumerate(_choose(lines, rng)):
        crop = cut(frames[line.box.frame], line.box.box, "")
        if not isinstance(crop, Reject):
            name = f"{person}_c{camera_index + 1}s{sequence + 1}_{line.box.frame:06d}_{number:02d}.jpg"
            (output / "benchmark" / folder / name).write_bytes(images.encode_jpeg(crop))


def _choose(lines: list[Tracked], rng: np.random.Generator) -> Iterator[tuple[str, str, Tracked]]:
    """(folder, person as in a file name, line) for the crops of one camera: queries, gallery, distractors, junk."""
    by_person: dict[int, list[Tracked]] = defaultdict(list)
    for line in lines:
        by_person[line.person].append(line)
    for person, some in sorted(by_person.items()):
        if person == NOBODY:
            yield from (("bounding_box_test", "0000", line) for line in some)
            continue
        picked = [some[i] for i in rng.permutation(len(some))[:BENCHMARK_CROPS]]
        for i, line in enumerate(picked):
            yield ("bounding_box_test" if i else "query"), f"{person:04d}", line
            if rng.random() < JUNK_SHARE:
                left, top, width, height = line.box.box
                beside = (left + rng.choice([-0.6, 0.6]) * width, top + 0.3 * height, width, height)
                yield "bounding_box_test", "-1", line._replace(box=line.box._replace(box=beside))


def deal(people: range, videos: int, per_video: int, rng: np.random.Generator) -> list[list[int]]:
    """Who walks through which video: everybody equally often (give or take one), nobody twice in one video."""
    seen = np.zeros(len(people))
    casts = []
    for _ in range(videos):
        chosen = np.argsort(seen + rng.random(len(people)))[:per_video]
        seen[chosen] += 1
        casts.append([people[i] for i in chosen])
    return casts


def make_person(config: StreetConfig, number: int) -> Person:
    """The person of that number."""
    return draw_person(_rng(config, PERSON, number))


def make_view(config: StreetConfig, camera_index: int, sequence: int) -> tuple[Camera, Look]:
    """The camera of that index, and how a sequence of it looks."""
    camera = make_camera(_rng(config, CAMERA, camera_index), (config.width, config.height))
    hour = _rng(config, HOUR, sequence * config.cameras + camera_index)
    return camera, make_look(_rng(config, CAST, camera_index), hour)


def _shoot(
    config: StreetConfig, camera_index: int, sequence: int, cast: list[int]
) -> Iterator[tuple[np.ndarray, list[Sighting]]]:
    cv2.setNumThreads(1)
    number = sequence * config.cameras + camera_index
    camera, look = make_view(config, camera_index, sequence)
    people = [(person, make_person(config, person)) for person in cast]
    walks = make_walks(people, camera, config.seconds, _rng(config, WALK, number))
    return film(camera, look, walks, config.frames, config.fps, _rng(config, NOISE, number))


def _rng(config: StreetConfig, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, stream, number])


def _run(jobs: list[tuple], processes: int) -> Iterator[None]:
    """Runs (function, *arguments) jobs; yields once per finished one."""
    if processes == 1:
        for function, *arguments in jobs:
            yield function(*arguments)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        for future in as_completed([pool.submit(*job) for job in jobs]):
            yield future.result()


def define_flags() -> None:
    """Defines a flag for every setting of a street, and where it is written."""
    flags.DEFINE_string("output", None, "Folder to write.", required=True)
    cli.define_number("processes", None, "That work on it; one per CPU unless given.", between(1, 1000))
    for name, value in dataclasses.asdict(StreetConfig()).items():
        says, whole = "A setting of the street; StreetConfig says what it is.", isinstance(value, int)
        cli.define_number(name, value, says, _LIMITS[name], whole)


def main(_: Sequence[str]) -> None:
    """Writes the street that the flags ask for."""
    given = flags.FLAGS
    settings: dict[str, Any] = {field.name: given[field.name].value for field in dataclasses.fields(StreetConfig)}
    config = StreetConfig(**settings)
    output = local_path(given.output, "--output")
    generate(output, config, given.processes)
    print(f"wrote {output}/videos" + (f" and {output}/benchmark" if config.benchmark_people else ""))


def run_main() -> None:
    """The command `data_prep.synthetic.street`; never returns."""
    define_flags()
    cli.run(main)


if __name__ == "__main__":
    run_main()

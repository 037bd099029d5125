"""Market-1501's train folder as studies learn from it: spoilt as a poor tracker spoils it, without some of the people.

Who is left out is either held out, to be scored on, or is what a smaller data set does without.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.denoise_quality import JUNK, Case, Embedded, Market, spoilt_images

NOBODY = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Noisy:
    """The train folder with the noise of one seed.

    Attributes:
      case: features and what is known of every image.
      files: [n] names below `root`.
      root: folder of all images, junk included.
    """

    case: Case
    files: list[str]
    root: Path


def noisy(
    market: Embedded, seed: int, rate: float, root: Path, apart: np.ndarray = NOBODY, share: float = 1.0
) -> Noisy:
    """Spoils the train folder, takes what is `kept`, writes the junk that it needs and copies what is there."""
    junk = round(JUNK * rate * len(market.images))
    names = [f"train/{Path(image.path).name}" for image in market.images]
    names += [f"junk{seed}/{row:05d}.png" for row in range(junk)]
    rows, host = (
        market.junk(seed) if rate else (np.zeros((0, market.clean.rows.shape[1]), np.float32), np.zeros(0, int))
    )
    found = spoilt_images(market.clean, host, seed, rate)
    found = found.take(np.flatnonzero(kept(found.truth, seed, apart, share)))
    at = found.rows[:, 0].astype(int)
    features = np.concatenate([market.clean.rows, rows[:junk]])
    _copied(market, root / "train")
    _junk(market, seed, junk, root / f"junk{seed}")
    return Noisy(replace(found, rows=features[at]), [names[row] for row in at], root)


def kept(truth: np.ndarray, seed: int, apart: np.ndarray = NOBODY, share: float = 1.0) -> np.ndarray:
    """Which images a smaller data set has: those of a share of the people, whole, and the same share of the junk.

    Args:
      truth: [n] people, -1: junk.
      seed: of the choice; a smaller share of one seed is a part of a larger one.
      apart: people that are not there at all.
      share: of the other people and of the junk, 0 .. 1.

    Returns:
      [n] bool.
    """
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.setdiff1d(truth[truth >= 0], apart))
    junk = rng.random(len(truth)) < share
    return np.where(truth < 0, junk, np.isin(truth, people[: round(share * len(people))]))


def so_manieth(text: str) -> int:
    """`--held_out`: every so manieth person is held out; 0: nobody. 1 would leave nobody to learn from."""
    if not text.isdecimal() or int(text) == 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 0, or a whole number from 2")
    return int(text)


def people_apart(market: Market, every: int) -> np.ndarray:
    """Every so manieth person of the train folder; 0: nobody."""
    people = np.unique(market.clean.truth[market.clean.truth >= 0])
    return people[::every] if every else NOBODY


def held_out(market: Market, apart: np.ndarray, root: Path) -> Path:
    """Writes a benchmark, named as Market-1501 names its files, of people of the train folder; returns its folder."""
    unfinished = root.with_name(f"{root.name}.part")
    seen: set[tuple[int | None, str]] = set()
    for image in market.images:
        if image.truth in apart:
            name = Path(image.path).name
            camera = image.truth, name[5:7]  # 0002_c1s1_000451_03.jpg
            part = unfinished / ("bounding_box_test" if camera in seen else "query")
            seen.add(camera)
            part.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(market.source.root / image.path, part / name)
    return unfinished.rename(root)


def _copied(market: Embedded, folder: Path) -> None:
    if folder.is_dir():
        return
    part = folder.with_name("train.part")
    part.mkdir(parents=True, exist_ok=True)
    for image in market.images:
        shutil.copyfile(market.source.root / image.path, part / Path(image.path).name)
    part.rename(folder)


def _junk(market: Embedded, seed: int, count: int, folder: Path) -> None:
    if folder.is_dir() and len(list(folder.iterdir())) >= count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    crops, _ = market.junk_crops(seed)
    for row, crop in enumerate(itertools.islice(crops, count)):
        cv2.imwrite(str(folder / f"{row:05d}.png"), crop[..., ::-1])

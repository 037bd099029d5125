"""Writes the spoilt Market-1501 of `denoise_quality` as sequences in MOTChallenge's layout, for data_prep itself.

    python -m benchmarks.denoise_market --data=MARKET --output=FOLDER [--seed=0] [--rate=1]
    python -m data_prep --source=mot --input=FOLDER --embedder=onnx:FILE --output=OUT

A sequence is one (camera, sequence) of Market-1501. The crops of a frame stand side by side in its picture, losslessly;
`tracks.txt` has the spoilt tracklets, `truth.txt` the people. Frames count tenfold, so that what came into a tracklet
on a frame that it had already stands on the next.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.denoise_quality import Case, Market, spoilt
from cion_jax.common.progress import progress
from data_prep.sources import mot, mottext

HEIGHT, WIDTH = 128, 64  # of every crop of Market-1501


def write(market: Market, output: Path, seed: int, rate: float) -> None:
    """Writes all sequences of one seed and rate into a new folder."""
    junk, host = market.junk_crops(seed)
    made, count = list(junk), len(market.images)
    numbered = replace(market.clean, rows=np.arange(count)[:, None])
    case = _singled(spoilt(numbered, (np.arange(len(made))[:, None] + count, host), seed, rate))
    for video in progress(np.unique(case.video).tolist(), "writing"):
        own = np.flatnonzero(case.video == video)
        name = market.source.videos()[video]
        (output / name / mot.PICTURES).mkdir(parents=True)
        boxes = [_frame(market, made, case, rows, output / name / mot.PICTURES) for rows in _by_frame(case, own)]
        for number, file in enumerate((mot.TRACKS[0], mot.TRUTH)):
            mottext.write(output / name / file, [pair[number] for some in boxes for pair in some])


def _singled(case: Case) -> Case:
    """The same with frames of which a tracklet has one image at most."""
    same = (np.diff(case.tracklet, prepend=-1) == 0) & (np.diff(case.frame, prepend=-1) == 0)
    place = np.arange(len(same))
    return replace(case, frame=10 * case.frame + place - np.maximum.accumulate(np.where(same, 0, place)))


def _by_frame(case: Case, rows: np.ndarray) -> list[np.ndarray]:
    order = rows[np.argsort(case.frame[rows], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(case.frame[order])) + 1)


def _frame(market: Market, junk: list[np.ndarray], case: Case, rows: np.ndarray, folder: Path) -> list:
    """Writes the picture of one frame; returns (box of the tracklet, box of the person) for every crop on it."""
    count, boxes = len(market.images), []
    picture = np.zeros((HEIGHT, WIDTH * len(rows), 3), np.uint8)
    for place, row in enumerate(rows.tolist()):
        number = int(case.rows[row, 0])
        left = WIDTH * place
        picture[:, left : left + WIDTH] = market.crop(number) if number < count else junk[number - count]
        box = (float(left), 0.0, float(WIDTH), float(HEIGHT))
        tracklet, truth, frame = int(case.tracklet[row]), int(case.truth[row]), int(case.frame[row])
        boxes.append((mottext.Box(frame, tracklet, box), mottext.Box(frame, truth, box)))
    cv2.imwrite(str(folder / f"{int(case.frame[rows[0]]):06d}.png"), picture[..., ::-1])
    return boxes


def main() -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0)
    args = parser.parse_args()
    write(Market(args.data), args.output, args.seed, args.rate)


if __name__ == "__main__":
    main()

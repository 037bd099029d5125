"""Market-1501's train folder as a poor tracker would give it, in folders that `--source=tracklets` reads.

    python -m benchmarks.noisy_tracklets --data=MARKET --output=DIR [--seed=0] [--rate=1] [--held_out=5]

The noise is that of `benchmarks.denoise_quality`: images in the tracklet of somebody else, tracklets cut in two, junk.
Written are `DIR/<video>/<tracklet>/<frame>`, so nothing in a path says who is seen. Images of a tracklet that share a
frame get the next free number: the order in time is kept. For choosing settings, `--held_out=5` leaves out every fifth
person, and writes these as a benchmark to `DIR_held_out`, one query of each in each camera.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np

from benchmarks.denoise_quality import JUNK, RATES, Market, spoilt_images
from benchmarks.noisy_market import NOBODY, held_out, people_apart, so_manieth
from cion_jax.common.progress import progress


def write(market: Market, seed: int, rate: float, output: Path, apart: np.ndarray = NOBODY) -> int:
    """Writes the noisy tracklets of a seed into a new folder, without the people `apart`; returns how many."""
    count = len(market.images)
    crops, host = market.junk_crops(seed)
    blends = list(itertools.islice(crops, round(JUNK * rate * count)))
    case = spoilt_images(market.clean, host, seed, rate)
    videos = market.source.videos()
    output.mkdir(parents=True)
    folder, frame = output, -1
    kept = np.flatnonzero(~np.isin(case.truth, apart))
    for number in progress(kept.tolist(), "images"):
        row = int(case.rows[number, 0])
        own = output / videos[case.video[number]] / f"{case.tracklet[number]:05d}"
        frame = max(int(case.frame[number]), frame + 1 if own == folder else 0)
        folder = own
        folder.mkdir(parents=True, exist_ok=True)
        if row < count:
            path = market.source.root / market.images[row].path
            shutil.copyfile(path, folder / f"{frame:07d}{path.suffix}")
        else:
            cv2.imwrite(str(folder / f"{frame:07d}.png"), blends[row - count][..., ::-1])
    return len(np.unique(case.tracklet[kept]))


def main() -> None:
    """Reads the flags and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0, help=f"of the noise, 0 to {max(RATES):g}; 0: none")
    parser.add_argument("--held_out", type=so_manieth, default=0, help="every so manieth person is left out; 0: none")
    args = parser.parse_args()
    if not 0 <= args.rate <= max(RATES):
        parser.error(f"--rate={args.rate}: expected a number from 0 to {max(RATES):g}")
    benchmark = Path(f"{args.output}_held_out")
    for folder in [args.output, benchmark] if args.held_out else [args.output]:
        if folder.exists():
            parser.error(f"--output={args.output}: {folder} is there already; name a new folder")
    market = Market(args.data)
    apart = people_apart(market, args.held_out)
    print(f"{write(market, args.seed, args.rate, args.output, apart):,} tracklets in {args.output}")
    if args.held_out:
        print(f"{len(apart):,} people in {held_out(market, apart, benchmark)}")


if __name__ == "__main__":
    main()

"""Market-1501's train folder as a poor tracker would give it, in folders that `--source=tracklets` reads.

    python -m benchmarks.noisy_tracklets --data=MARKET --output=DIR [--seed=0] [--rate=1]

The noise is that of `benchmarks.denoise_quality`: images in the tracklet of somebody else, tracklets cut in two, junk.
Written are `DIR/<video>/<tracklet>/<frame>`, so nothing in a path says who is seen. Images of a tracklet that share a
frame get the next free number: the order in time is kept.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path

import cv2

from benchmarks.denoise_quality import JUNK, RATES, Market, spoilt_images
from cion_jax.common.progress import progress


def write(market: Market, seed: int, rate: float, output: Path) -> int:
    """Writes the noisy tracklets of a seed into a new folder; returns how many there are."""
    count = len(market.images)
    crops, host = market.junk_crops(seed)
    blends = list(itertools.islice(crops, round(JUNK * rate * count)))
    case = spoilt_images(market.clean, host, seed, rate)
    videos = market.source.videos()
    output.mkdir(parents=True)
    folder, frame = output, -1
    for number, row in enumerate(progress(case.rows[:, 0].astype(int).tolist(), "images")):
        own = output / videos[case.video[number]] / f"{case.tracklet[number]:05d}"
        frame = max(int(case.frame[number]), frame + 1 if own == folder else 0)
        folder = own
        folder.mkdir(parents=True, exist_ok=True)
        if row < count:
            path = market.source.root / market.images[row].path
            shutil.copyfile(path, folder / f"{frame:07d}{path.suffix}")
        else:
            cv2.imwrite(str(folder / f"{frame:07d}.png"), blends[row - count][..., ::-1])
    return int(case.tracklet.max()) + 1


def main() -> None:
    """Reads the flags and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.0, help=f"of the noise, 0 to {max(RATES):g}; 0: none")
    args = parser.parse_args()
    if not 0 <= args.rate <= max(RATES):
        parser.error(f"--rate={args.rate}: expected a number from 0 to {max(RATES):g}")
    if args.output.exists():
        parser.error(f"--output={args.output} is there already; name a new folder")
    print(f"{write(Market(args.data), args.seed, args.rate, args.output):,} tracklets in {args.output}")


if __name__ == "__main__":
    main()

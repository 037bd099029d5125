"""Small sequences for the tests of source `mot`: every frame's gray level tells its number."""

import cv2
import numpy as np

from data_prep import sources
from data_prep.config import MotConfig
from data_prep.types import Reject

WIDTH, HEIGHT = 160, 120
BOX = (100, 20, 20, 50)  # no corners: its width is below its left side


def frame(number):
    return np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)


def pictures(folder, numbers=range(1, 7), name="{:06d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for k, number in enumerate(numbers, 1):
        cv2.imwrite(str(folder / name.format(number)), frame(k))
    return folder


def video(path, frames=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path.with_suffix(".avi")), cv2.VideoWriter_fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for number in range(1, frames + 1):
        writer.write(frame(number))
    writer.release()
    path.with_suffix(".avi").rename(path)
    return path


def line(number, track=1, box=BOX, tail="1,-1,-1,-1"):
    return ",".join(map(str, (number, track, *box))) + (f",{tail}" if tail else "")


def text(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def seen(root, tracks=None, **settings):
    """{video: [(track, which frame the crop was really cut from, in the order of the crops)]}."""
    source = sources.open("mot", root, tracks=tracks, settings=MotConfig(**settings))
    found = {}
    for name in source.videos():
        crops = list(source.crops(source.read(name)[0]))
        good = [(image.tracklet, round(crop.mean() / 20)) for image, crop in crops if not isinstance(crop, Reject)]
        found[name] = sorted(good)
    return found


def frames_of(root, **settings):
    """Frames that the crops of the only sequence were really cut from."""
    (only,) = seen(root, **settings).values()
    return [number for _, number in only]

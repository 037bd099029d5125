"""Images per second that the host reads and decodes: `python -m benchmarks.host_input`.

Synthetic 256x128 JPEGs, identity groups of 4 in batches of 192, everything in the page cache. A core means a core: the
rate is divided by the processor time used, not by the threads started.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import simplejpeg
from array_record.python.array_record_data_source import ArrayRecordDataSource

from benchmarks.common import header, median_seconds, table
from cion_jax.data.groups import EpochPlan, Timeline, Units
from cion_jax.data.shards import ShardReader, decode
from cion_jax.data.stream import IdentityStream
from data_prep.output import shards
from data_prep.types import Image

IMAGES, PER_IDENTITY, K, BATCH = 4000, 16, 4, 192
CANVAS = (256, 128)


def _jpeg(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 255, (32, 16, 3), dtype=np.uint8)
    picture = cv2.resize(noise, CANVAS[::-1], interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(picture, quality=90)


def write_shards(folder: Path) -> None:
    """Identity shards of synthetic pictures."""
    images = [Image(f"{i:06d}", "v", f"{i // 4:06d}", i, "") for i in range(IMAGES)]
    identities = np.arange(IMAGES) // PER_IDENTITY
    shards.write(folder, images, identities, lambda image: _jpeg(image.frame), pa.table({}), 1000)


def _rates(reader: ShardReader, threads: int) -> tuple[float, float]:
    """Median images per second over the batches of one pass, and images per second of processor time."""
    units = Units.of(reader.index, "identity")
    timeline, plan = Timeline(units, 2, BATCH, ((0, K),)), partial(EpochPlan, units, 0)
    run = IdentityStream(reader, units, timeline, plan, CANVAS, threads).batches()
    next(run)
    processor, times = time.process_time(), [time.perf_counter()]
    for _ in run:
        times.append(time.perf_counter())
    images = BATCH * (len(times) - 1)
    wall = statistics.median(np.diff(times))
    return BATCH / float(wall), images / (time.process_time() - processor)


def _micros(run: Callable[[], object]) -> str:
    return f"{median_seconds(run, 200) * 1e6:.0f}"


def _parts(folder: Path, reader: ShardReader) -> list[tuple]:
    source = ArrayRecordDataSource(sorted(map(str, folder.glob("*.array_record-*"))))
    canvas, jpeg = np.zeros((*CANVAS, 3), np.uint8), _jpeg(0)
    return [
        ("read and parse 4 records", _micros(lambda: reader.read([100, 101, 102, 103]))),
        ("the same with ArrayRecordDataSource, unparsed", _micros(lambda: source.__getitems__([100, 101, 102, 103]))),
        (f"decode one image of {len(jpeg)} bytes", _micros(lambda: decode(jpeg, canvas))),
    ]


def main() -> None:
    header("host input")
    with tempfile.TemporaryDirectory() as name:
        write_shards(Path(name))
        reader = ShardReader(name)
        table(["part", "us"], _parts(Path(name), reader))
        rows = [(n, *(f"{rate:.0f}" for rate in _rates(reader, n))) for n in (0, 1, 2, 4, 16)]
        table(["threads", "images/s", "images/s per core"], rows)


if __name__ == "__main__":
    main()

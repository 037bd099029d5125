"""Small datasets written by data_prep's own writer."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg

from data_prep.output import shards
from data_prep.types import Image

SIZES = [5, 2, 9, 4, 1, 6, 3, 8]


def picture(number: int, height: int = 32, width: int = 16) -> np.ndarray:
    """A smooth picture whose mean color tells its number: [height, width, 3] uint8."""
    ramp = np.linspace(0, 20, height, dtype=np.uint8)[:, None, None]
    color = np.array([number * 4 % 200, 50, 200 - number * 4 % 200], np.uint8)
    return np.broadcast_to(ramp + color, (height, width, 3)).copy()


def write(folder: Path, sizes=SIZES, jpeg=None, records_per_shard=10) -> Path:
    """Writes sum(sizes) pictures; `jpeg(number)` gives the bytes of one."""
    jpeg = jpeg or (lambda number: simplejpeg.encode_jpeg(picture(number), quality=95))
    identities = np.repeat(np.arange(len(sizes)), sizes)
    images = [Image(f"v/{i:03d}", f"v{i % 2}", f"t{i // 4}", i, "") for i in range(len(identities))]
    order = sorted(range(len(images)), key=lambda i: (identities[i], images[i].video, images[i].tracklet))
    record = {images[i].key: n for n, i in enumerate(order)}
    shards.write(folder, images, identities, lambda image: jpeg(record[image.key]), pa.table({}), records_per_shard)
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """38 pictures of 8 identities in 4 shards; read it, never change it."""
    return write(tmp_path_factory.mktemp("shards"))

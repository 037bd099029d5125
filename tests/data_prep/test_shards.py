"""Identity shards, opened by TFDS as a stranger would."""

import subprocess
import sys

import cv2
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds

from cion_jax.data import records
from data_prep.output import shards
from data_prep.types import Image


def _image(video, tracklet, frame):
    return Image(f"{video}/{tracklet}/{frame}.jpg", video, tracklet, frame, path="")


def _jpeg(image):
    color = (10 * image.frame % 256, 0, 255 if image.video == "hall" else 0)
    return cv2.imencode(".jpg", np.full((16, 8, 3), color, np.uint8))[1].tobytes()


# Two people; person 0 is seen in two videos. Deliberately out of order.
IMAGES = [
    _image("street", "9", 3),
    _image("hall", "2", 7),
    _image("hall", "10", 5),
    _image("street", "9", 1),
    _image("hall", "2", 20),
    _image("hall", "9", 2),
]
IDENTITIES = [0, 1, 0, 0, 1, 0]
PROVENANCE = pa.table({"key": [i.key for i in IMAGES], "identity": IDENTITIES})


def _write(folder, jpeg_of=_jpeg, **settings):
    return shards.write(folder, IMAGES, IDENTITIES, jpeg_of, PROVENANCE, **settings)


def test_tfds_opens_what_was_written(tmp_path):
    index = _write(tmp_path, records_per_shard=2)
    source = tfds.builder_from_directory(tmp_path).as_data_source()[records.SPLIT]
    assert [r[records.KEY].decode() for r in source] == [
        "hall/10/5.jpg",
        "hall/9/2.jpg",
        "street/9/1.jpg",
        "street/9/3.jpg",
        "hall/2/7.jpg",
        "hall/2/20.jpg",
    ]
    assert [r[records.IDENTITY] for r in source] == [0, 0, 0, 0, 1, 1] == index.identity.tolist()
    assert [r[records.FRAME] for r in source] == [5, 2, 1, 3, 7, 20]
    assert [r[records.VIDEO] for r in source] == [b"hall", b"hall", b"street", b"street", b"hall", b"hall"]
    assert [r[records.TRACKLET] for r in source] == [b"10", b"9", b"9", b"9", b"2", b"2"]
    assert index.tracklet.tolist() == [0, 2, 3, 3, 1, 1]
    assert records.Index.load(tmp_path).digest() == index.digest()
    image = source[0][records.IMAGE]
    assert image.shape == (16, 8, 3)
    assert np.abs(image[8, 4].astype(int) - (255, 0, 50)).max() < 6  # RGB: cv2 wrote BGR (50, 0, 255)
    assert pa.parquet.read_table(tmp_path / records.PROVENANCE_FILE).equals(PROVENANCE)


def test_shards_are_balanced_and_named_as_tfds_expects(tmp_path):
    _write(tmp_path, records_per_shard=2)
    assert sorted(p.name for p in tmp_path.glob("*array_record*")) == [
        f"identity_shards-train.array_record-0000{i}-of-00003" for i in range(3)
    ]
    split = tfds.builder_from_directory(tmp_path).info.splits["train"]
    assert (split.shard_lengths, split.num_examples) == ([2, 2, 2], 6)
    _write(tmp_path / "unequal", records_per_shard=4)
    assert tfds.builder_from_directory(tmp_path / "unequal").info.splits["train"].shard_lengths == [3, 3]


def test_same_rows_give_the_same_bytes(tmp_path):
    order = [3, 0, 5, 4, 2, 1]
    _write(tmp_path / "a")
    shuffled = [IMAGES[i] for i in order], [IDENTITIES[i] for i in order]
    shards.write(tmp_path / "b", *shuffled, _jpeg, PROVENANCE)
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / x).iterdir()} for x in "ab")
    assert len(a) == 5
    assert a == b


def test_an_interrupted_write_is_no_dataset_and_can_be_repeated(tmp_path):
    def failing(image):
        if image.frame == 20:
            raise OSError("disk gone")
        return _jpeg(image)

    with pytest.raises(OSError, match="disk gone"):
        _write(tmp_path, failing, records_per_shard=2)
    assert not (tmp_path / "dataset_info.json").exists()
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(Exception, match="dataset_info"):
        tfds.builder_from_directory(tmp_path)
    _write(tmp_path)
    assert len(list(tmp_path.glob("identity_shards-*"))) == 1  # nothing of the first attempt is left
    assert len(tfds.builder_from_directory(tmp_path).as_data_source()["train"]) == 6


def test_refuses_to_write_over_a_dataset(tmp_path):
    _write(tmp_path)
    with pytest.raises(FileExistsError, match="another --output"):
        _write(tmp_path)


@pytest.mark.parametrize(
    ("images", "identities", "message"),
    [
        ([], [], "no image is left"),
        (IMAGES[:2], [0, 2], "numbered 0, 1, 2"),
        ([IMAGES[0], IMAGES[0]], [0, 0], "occurs twice"),
    ],
)
def test_bad_rows(tmp_path, images, identities, message):
    with pytest.raises(ValueError, match=message):
        shards.write(tmp_path / "new", images, identities, _jpeg, PROVENANCE)
    assert not (tmp_path / "new").exists()


def test_only_jpeg_is_stored(tmp_path):
    with pytest.raises(ValueError, match=r"hall/10/5.jpg: expected the bytes of a JPEG"):
        _write(tmp_path, lambda image: b"\x89PNG....")


def test_writes_without_tensorflow_and_jax():
    code = "import sys, data_prep.output.shards as s; s.features(); print({'tensorflow', 'jax'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

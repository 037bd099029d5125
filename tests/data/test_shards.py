"""Shards as data_prep writes them: reading, decoding, and everything that can be wrong with them."""

import hashlib
import json

import cv2
import numpy as np
import pytest
import simplejpeg

from cion_jax.data import records
from cion_jax.data.records import DatasetError
from cion_jax.data.shards import ShardError, ShardReader, Unreadable, decode
from tests.data.conftest import SIZES, picture, write


def test_records_come_in_the_order_asked_for_across_shards(dataset):
    reader = ShardReader(dataset)
    numbers = [37, 0, 12, 11, 0, 25]
    fields = reader.read(numbers)
    assert len(reader) == sum(SIZES)
    assert [f[records.IDENTITY] for f in fields] == reader.index.identity[numbers].tolist()
    for number, field in zip(numbers, fields, strict=True):
        mean = simplejpeg.decode_jpeg(field[records.IMAGE]).mean((0, 1))
        assert abs(mean - picture(number).mean((0, 1))).max() < 2
    assert len({f[records.KEY] for f in fields}) == 5
    assert fields[0][records.TRACKLET].startswith("t")


def test_every_field_is_what_was_written(dataset):
    fields = ShardReader(dataset).read(range(38))
    frames = [f[records.FRAME] for f in fields]
    assert sorted(frames) == list(range(38))
    assert all(f[records.KEY] == f"v/{n:03d}" for f, n in zip(fields, frames, strict=True))
    assert all(f[records.VIDEO] == f"v{n % 2}" for f, n in zip(fields, frames, strict=True))


@pytest.mark.parametrize("number", [-1, 38])
def test_a_record_that_does_not_exist(dataset, number):
    with pytest.raises(IndexError, match=r"outside the dataset's 0 \.\. 37"):
        ShardReader(dataset).read([0, number])


def test_a_folder_without_a_dataset(tmp_path):
    with pytest.raises(DatasetError, match="data_prep"):
        ShardReader(tmp_path)


def test_a_dataset_whose_writing_was_interrupted(tmp_path):
    (write(tmp_path) / "dataset_info.json").unlink()
    with pytest.raises(DatasetError, match="incomplete"):
        ShardReader(tmp_path)


def _second_shard(folder):
    return sorted(folder.glob("*.array_record-*"))[1]


def test_a_missing_shard(tmp_path):
    path = _second_shard(write(tmp_path))
    path.unlink()
    with pytest.raises(ShardError, match=f"{path.name} is missing, expected 10 records"):
        ShardReader(tmp_path)


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_shard_cut_short(tmp_path, keep):
    path = _second_shard(write(tmp_path))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ShardError, match=rf"{path.name} is cut short .*expected 10 records, got 0"):
        ShardReader(tmp_path)


def test_a_shard_of_another_dataset(tmp_path):
    path = _second_shard(write(tmp_path / "a"))
    other = sorted(write(tmp_path / "b", records_per_shard=20).glob("*.array_record-*"))[0]
    path.write_bytes(other.read_bytes())
    with pytest.raises(ShardError, match="expected 10 records, got 19"):
        ShardReader(tmp_path / "a")


def test_an_index_of_another_dataset(tmp_path):
    write(tmp_path / "a")
    for name, sizes, message in [("b", [3, 3], "knows 6 records, the shards hold 38"), ("c", [38], None)]:
        index = write(tmp_path / name, sizes) / records.INDEX_FILE
        (tmp_path / "a" / records.INDEX_FILE).write_bytes(index.read_bytes())
        if message:
            with pytest.raises(ShardError, match=message):
                ShardReader(tmp_path / "a")
    with pytest.raises(ShardError, match=r"record 9 is of identity 7, .* expects 0"):
        ShardReader(tmp_path / "a").read([0, 37])


def test_a_damaged_record_takes_no_others_with_it(tmp_path):
    path = _second_shard(write(tmp_path))
    content = bytearray(path.read_bytes())
    middle = 2000  # the records come first, the footer takes the second half
    content[middle : middle + 10] = bytes(10)
    path.write_bytes(content)
    missing = [i for i, fields in enumerate(ShardReader(tmp_path).read(range(38))) if fields is None]
    assert len(missing) == 1
    assert 9 <= missing[0] < 19


def test_the_files_are_those_that_the_dataset_names(dataset):
    info = json.loads((dataset / "dataset_info.json").read_text())
    assert info["splits"][0]["filepathTemplate"] == "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def test_small_images_lie_unscaled_in_the_corner():
    canvas = np.full((64, 32, 3), 7, np.uint8)
    jpeg = simplejpeg.encode_jpeg(picture(9), quality=95)
    assert decode(jpeg, canvas) == (32, 16)
    assert np.array_equal(canvas[:32, :16], simplejpeg.decode_jpeg(jpeg))
    assert np.all(canvas[32:] == 7)
    assert np.all(canvas[:, 16:] == 7)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((128, 64), (64, 32)), ((128, 32), (64, 16)), ((64, 64), (32, 32)), ((64, 32), (64, 32)), ((40, 400), (3, 32))],
)
def test_large_images_are_scaled_to_fit(size, expected):
    canvas = np.zeros((64, 32, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(picture(9, *size), quality=95)
    assert decode(jpeg, canvas) == expected
    area = cv2.resize(simplejpeg.decode_jpeg(jpeg), expected[::-1], interpolation=cv2.INTER_AREA)
    assert np.array_equal(canvas[: expected[0], : expected[1]], area)


def test_grey_jpegs_become_three_channels():
    canvas = np.zeros((32, 16, 3), np.uint8)
    decode(simplejpeg.encode_jpeg(picture(9)[..., :1].copy(), colorspace="GRAY"), canvas)
    assert np.array_equal(canvas[..., 0], canvas[..., 2])


@pytest.mark.parametrize("cut", [slice(0, 0), slice(0, 20), slice(0, -40)])
def test_what_is_no_whole_jpeg_raises_and_leaves_the_canvas(cut):
    canvas = np.zeros((32, 16, 3), np.uint8)
    with pytest.raises(ValueError):  # noqa: PT011 - the decoder's own words
        decode(simplejpeg.encode_jpeg(picture(9))[cut], canvas)
    assert not canvas.any()


@pytest.mark.parity
def test_decoding_equals_the_reference_decoder(fixtures, data):
    images = json.loads((fixtures / "aug_real_crops.json").read_text())["images"]
    assert images
    for name, spec in images.items():
        canvas = np.zeros((*spec["h_w"], 3), np.uint8)
        decode((data / "market1501" / name).read_bytes(), canvas)
        assert hashlib.sha256(canvas.tobytes()).hexdigest() == spec["sha256_of_decoded_rgb"], name


def test_unreadable_images_stop_the_run_beyond_their_share(caplog):
    unreadable = Unreadable(0.002)
    unreadable.add_images(100)
    unreadable.add_skipped("a", "broken")
    unreadable.add_skipped("b", "broken")
    assert "skipped b: broken" in caplog.text
    with pytest.raises(ShardError, match=r"3 of 100 images .* at most 0\.002; the last one is c: broken"):
        unreadable.add_skipped("c", "broken")
    with pytest.raises(ShardError):
        Unreadable(0).add_skipped("a", "broken")

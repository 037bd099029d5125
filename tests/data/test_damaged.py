"""Small files of a data set, damaged: named, with what to do, whatever the damage is."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from cion_jax.common import checksums
from cion_jax.data import intact, records, shards, train_split
from cion_jax.data.shards import ShardReader


@pytest.fixture
def data(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "data")


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def whole(folder):
    return (folder / records.INDEX_FILE).read_bytes()


def flipped(folder):
    content = bytearray(whole(folder))
    content[200] ^= 1
    return bytes(content)


def squeezed(folder):
    index, buffer = records.Index.load(folder), io.BytesIO()
    np.savez_compressed(buffer, identity=index.identity, tracklet=index.tracklet)
    return buffer.getvalue()


def claiming(folder):
    """A header that claims eight terabytes."""
    buffer, head = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("identity", "tracklet"):
            archive.writestr(f"{name}.npy", head.getvalue() + bytes(80))
    return buffer.getvalue()


NUMBERS = np.zeros(3, np.int64)
INDEXES = [
    lambda _: b"",
    lambda folder: whole(folder)[:700],
    flipped,
    squeezed,
    claiming,
    lambda _: npz(identity=NUMBERS),
    lambda _: npz(identity=NUMBERS, tracklet=NUMBERS.astype(float)),
    lambda _: npz(identity=np.array([{}]), tracklet=NUMBERS),
    lambda _: npz(identity=NUMBERS + 1, tracklet=NUMBERS),
]


@pytest.mark.parametrize("make", INDEXES)
def test_index(data, make):
    (data / records.INDEX_FILE).write_bytes(make(data))
    with pytest.raises(records.DatasetError, match=r"index.npz is damaged: .*; write the data set again"):
        ShardReader(data)


INFOS = ["", "{", "[]", "null", "{}", '{"splits": []}', '{"splits": [{"name": "test"}]}', "[" * 10**5, "\ud800"]
INFOS += [json.dumps({"splits": [{"name": "train", "shardLengths": x}]}) for x in ("49", None, [], ["x"], [[]], 7)]
INFOS += [json.dumps({"splits": [{"name": "train", "shardLengths": ["49"]}] * 2})]


@pytest.mark.parametrize("text", INFOS)
def test_info(data, text):
    (data / records.INFO_FILE).write_text(text, errors="surrogateescape" if text != "\ud800" else "surrogatepass")
    with pytest.raises(records.DatasetError, match=r"dataset_info.json is damaged: .*; write the data set again"):
        ShardReader(data)


def test_what_is_no_file_is_not_waited_for(data):
    for name in (records.INFO_FILE, records.INDEX_FILE):
        (data / name).unlink()
        os.mkfifo(data / name)
        with pytest.raises(records.DatasetError, match=f"no {name} in "):
            ShardReader(data)


def test_pictures_that_claim_too_much_are_skipped(monkeypatch, data):
    image = ShardReader(data).read([0])[0][records.IMAGE]
    monkeypatch.setenv("CION_MAX_PIXELS", "100")
    with pytest.raises(ValueError, match="the header says 16 x 32 pixels, expected at most 100"):
        shards.decode(image, np.zeros((32, 16, 3), np.uint8))


def with_digests(folder):
    for name in (records.METRICS_FILE, records.CARD_FILE):
        (folder / name).write_text("{}")
    (folder / checksums.SUMS).unlink(missing_ok=True)
    checksums.write(folder / checksums.SUMS, {path.name: path for path in sorted(folder.iterdir())})
    return folder


@pytest.mark.parametrize("name", [records.INFO_FILE, records.INDEX_FILE, records.METRICS_FILE, "identity_shards-*"])
def test_a_changed_file_is_refused_by_name_before_a_step(data, name, capsys):
    """Changed, not damaged: each would be read without a word."""
    (path,) = with_digests(data).glob(name)
    whole_file = path.read_bytes()
    path.write_bytes(whole_file + b" ")
    with pytest.raises(records.DatasetError, match=f"{path.name} is not what was written.* copy or write it again"):
        train_split.open_people(data)
    path.unlink()
    with pytest.raises(records.DatasetError, match=path.name):
        train_split.open_people(data)
    path.write_bytes(whole_file)
    (data / records.CARD_FILE).write_text("My data set.")
    assert len(train_split.open_people(data)) == 49
    assert capsys.readouterr().err == ""


def test_digests_of_large_shards_are_left_to_verify_and_that_is_said(data, monkeypatch, capsys):
    (path,) = with_digests(data).glob("identity_shards-*")
    monkeypatch.setattr(intact, "_AT_ONCE", path.stat().st_size - 1)
    (data / records.FEATURES_FILE).write_text("{}")
    with pytest.raises(records.DatasetError, match=r"features\.json is not what was written"):
        intact.check(data)
    intact.check(with_digests(data))
    assert f"python -m cion_jax.verify {data}" in capsys.readouterr().err


def test_without_digests_that_is_said(data, capsys):
    train_split.open_people(data)
    assert "has no SHA256SUMS" in capsys.readouterr().err

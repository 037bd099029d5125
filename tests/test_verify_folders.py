"""Runs and data sets, verified from end to end."""

import json
import shutil

import jax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cion_jax.common import checksums
from cion_jax.common.checksums import ChecksumError
from cion_jax.data import records
from cion_jax.data.shards import ShardReader
from cion_jax.export import export
from cion_jax.training.checkpoint import Checkpointer
from cion_jax.training.loop import record
from cion_jax.training.step import init_state
from cion_jax.verify import Report, verify
from cion_jax.weights.load import load
from tests import toy

ORIGIN = {"source": "random:toy@32x16", "network": "teacher", "licence": "CC0-1.0"}


@pytest.fixture(scope="module")
def whole_data(tmp_path_factory):
    """A data set with a provenance and measurements, as data_prep leaves it."""
    folder = tmp_path_factory.mktemp("whole") / "data"
    index = toy.write_shards(folder)
    keys = [fields[records.KEY] for fields in ShardReader(folder).read(range(len(index.identity)))]
    columns = {"key": [*keys, "left out"], "identity": [*index.identity.tolist(), None]}
    rows = pa.table(columns | {"record": [*range(len(keys)), None]})
    pq.write_table(rows, folder / records.PROVENANCE_FILE, write_page_checksum=True)
    (folder / records.METRICS_FILE).write_text("{}")
    return folder


@pytest.fixture
def data(whole_data, tmp_path):
    return shutil.copytree(whole_data, tmp_path / "data")


def flip(path, at, bit=1):
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)


def test_a_whole_data_set(data):
    report = verify(data)
    assert report.damage == []
    shard = "identity_shards-train.array_record-00000-of-00001"
    names = f"dataset_info.json, features.json, index.npz, provenance.parquet, metrics.json, {shard}"
    said = f"49 records of 13 identities, every picture decoded, no digest recorded for {names}"
    assert report.looked_at == said


def middles(folder):
    """Every file of a folder with a bit flipped in its middle, one after the other, and back."""
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        flip(path, path.stat().st_size // 2, 4)
        yield path
        flip(path, path.stat().st_size // 2, 4)


def test_a_flipped_bit_in_the_middle_of_any_file_of_a_data_set(data):
    checksums.write(data / checksums.SUMS, {path.name: path for path in sorted(data.iterdir())})
    assert "digest" not in verify(data).looked_at
    assert verify(data).damage == []
    unseen = [path.name for path in middles(data) if not any(path.name in line for line in verify(data).damage)]
    assert unseen == []


def test_a_flipped_bit_in_a_record(data):
    (shard,) = data.glob("*array_record*")
    flip(shard, 9000)  # the middle of a file is the header of a block
    report = verify(data)
    assert len(report.damage) == 1
    assert f"{shard.name}, record " in report.damage[0]
    assert "its bytes are not what was written" in report.damage[0]


def test_a_picture_that_cannot_be_decoded(tmp_path, whole_data):
    folder = tmp_path / "data"
    toy.write_shards(folder, broken=lambda image: image.key == "v0/5/0.jpg")
    for name in (records.PROVENANCE_FILE, records.METRICS_FILE):
        shutil.copy(whole_data / name, folder)
    (line,) = verify(folder).damage
    assert line.startswith(str(folder))
    assert "expected a whole JPEG" in line


@pytest.mark.parametrize("name", ["index.npz", "dataset_info.json", "features.json", "provenance.parquet"])
def test_small_files(data, name):
    path = data / name
    path.write_bytes(path.read_bytes()[:60])
    report = verify(data)
    assert any(name in line and "is damaged" in line for line in report.damage), report.damage


def test_what_does_not_belong_together(data):
    index = records.Index.load(data)
    tracklet = index.tracklet.copy()
    tracklet[0], tracklet[-1] = tracklet[-1], tracklet[0]
    records.Index(index.identity, tracklet).save(data)
    rows = pq.read_table(data / records.PROVENANCE_FILE)
    keys = rows["key"].to_pylist()
    keys[3], keys[4] = keys[4], keys[3]
    pq.write_table(rows.set_column(0, "key", pa.array(keys)), data / records.PROVENANCE_FILE)
    damage = verify(data).damage
    assert any("is of another tracklet than the index says" in line for line in damage)
    assert sum("provenance.parquet: record " in line for line in damage) == 2
    (data / records.METRICS_FILE).unlink()
    assert "metrics.json is missing" in verify(data).damage[0]


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints, as the trainer leaves it."""
    task = toy.task("data")
    state = init_state(task)
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, state, task.served, record(task, step, "x"))
    (tmp_path / "config.json").write_text(json.dumps(record(task, 1, "x")["config"]))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    jax.block_until_ready(state)
    return tmp_path


def test_a_flipped_bit_in_the_middle_of_any_file_of_a_run(run):
    checksums.write(run / checksums.SUMS, {name: run / name for name in ("config.json", "metrics.jsonl")})
    assert verify(run) == Report("2 checkpoints", [])
    unseen = [path.name for path in middles(run) if not any(path.name in line for line in verify(run).damage)]
    assert unseen == []


def test_a_flipped_bit_in_the_middle_of_any_exported_file(tmp_path):
    export(load("random:toy@32x16"), "safetensors", tmp_path / "a" / "toy.safetensors", **ORIGIN)
    report = verify(tmp_path / "a")
    assert report == Report("toy.safetensors, with a digest of every byte", [])
    assert verify(tmp_path / "a" / "toy.safetensors") == report
    assert [path.name for path in middles(tmp_path / "a") if not verify(tmp_path / "a").damage] == []
    next(middles(tmp_path / "a"))
    with pytest.raises(ChecksumError, match=r"toy\.safetensors is not what was written"):
        load(str(tmp_path / "a" / "toy.safetensors"))
    (tmp_path / "a" / "other.onnx").write_text("")
    assert verify(tmp_path / "a").looked_at.endswith("digest of every byte, no digest recorded for other.onnx")


def test_a_run(run):
    report = verify(run)
    assert report.damage == []
    assert report.looked_at == "2 checkpoints, no digest recorded for config.json, metrics.jsonl"
    arrays = max((run / "checkpoints" / "1").rglob("ocdbt*/d/*"), key=lambda path: path.stat().st_size)
    flip(arrays, arrays.stat().st_size // 2)
    (run / "metrics.jsonl").write_bytes(b'{"step": 2}\n\0\0\0\n{"step": 1}\n{"st')
    (run / "config.json").write_text('{"task": "distill", "seed": -1}')
    damage = verify(run).damage
    assert [line.partition(":")[0].rpartition("/")[2] for line in damage[:2]] == [
        "config.json is damaged (config.json.seed must be in [0, 9.22337204e+18), got -1); nothing reads it, and "
        "resuming writes it again",
        "metrics.jsonl",
    ]
    assert f"{run}/metrics.jsonl:2: no row of measurements" in damage
    assert f"{run}/metrics.jsonl: its steps do not rise" in damage
    assert f"{run}/metrics.jsonl: its last line is cut short" in damage
    assert "checkpoints/1 is damaged; delete that folder to go on from the beginning" in damage[-1]
    assert len(damage) == 5

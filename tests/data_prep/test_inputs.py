"""Work is remembered by its input: what has changed is done again, what has not is not."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cion_jax.reid import feature_file
from data_prep import sources
from data_prep.config import Config
from data_prep.pipeline import given, inputs, per_video, run
from data_prep.pipeline.beam import RunError
from data_prep.pipeline.workdir import OutputError
from data_prep.types import Image
from tests.data_prep.painted import BLUE, GREEN, RED, A, B, MeanColor, by_key, content, job, paint


def interrupted(monkeypatch, the_job):
    """A run that is stopped after the levels, before anything is written."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            run.run(the_job)
    MeanColor.calls = 0


def turn(root, video, tracklet, image, color):
    """Another picture under the same name."""
    fresh = paint(root.parent / "fresh", {"v": {"t": [color]}}) / "v" / "t" / "000.jpg"
    shutil.move(fresh, root / video / tracklet / f"{image:03d}.jpg")
    shutil.rmtree(root.parent / "fresh")


@pytest.mark.parametrize("preset", ["paper", "cion_jax"])
def test_a_mended_video_is_done_again_and_no_other(tmp_path, mean_color, monkeypatch, preset):
    root = paint(tmp_path / "in")
    interrupted(monkeypatch, job(root, tmp_path / "out", preset=preset))
    turn(root, B, "u2", 0, GREEN)
    run.run(job(root, tmp_path / "out", preset=preset))
    assert MeanColor.calls == 1
    run.run(job(root, tmp_path / "undisturbed", preset=preset))
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: None, {}),
        (lambda root: turn(root, B, "u2", 0, GREEN), {B: "files of other sizes or times"}),
        (lambda root: os.utime(root / A / "t0" / "000.jpg", ns=(1, 1)), {A: "files of other sizes or times"}),
        (lambda root: (root / A / "t0" / "003.jpg").unlink(), {A: "8 images then, 7 now"}),
        (lambda root: (root / A / "t0").rename(root / A / "t9"), {A: "other names, frames or boxes"}),
        (lambda root: (root / A / "t0" / "x.txt").touch(), {A: "other inputs set aside"}),
        (lambda root: paint(root, {"new": {"t": [RED]}}), {"new": "is new"}),
        (lambda root: shutil.rmtree(root / B), {B: "is gone"}),
    ],
)
def test_changes_are_named(tmp_path, change, said):
    root, work, config = paint(tmp_path / "in"), run.Work(tmp_path / "out"), Config()
    work.folder.mkdir(parents=True)
    for video in (A, B):
        per_video.embed(sources.open("tracklets", root), MeanColor(), work, video, config)
    change(root)
    source = sources.open("tracklets", root)
    assert inputs.changes(work, source, source.videos(), MeanColor.digest, config, whole=True) == said
    work.forget(said)
    assert inputs.changes(work, source, source.videos(), MeanColor.digest, config, whole=False) == {}


def test_one_file_may_hold_all_pictures(tmp_path):
    """As an LMDB does: names of images are no files then."""
    (tmp_path / "data.mdb").write_bytes(b"pixels")
    some = [Image("v/t/a", "v", "t", 0, "a")]
    source = SimpleNamespace(root=tmp_path, container=tmp_path / "data.mdb", read=lambda video: (some, []))
    before = inputs.read(source, "v", "", Config())[2]
    assert inputs.read(source, "v", "", Config())[2] == before
    (tmp_path / "data.mdb").write_bytes(b"other pixels")
    assert inputs.read(source, "v", "", Config())[2] != before


def test_what_it_was_made_of_is_not_known(tmp_path):
    root, work = paint(tmp_path / "in"), run.Work(tmp_path / "out")
    work.folder.mkdir(parents=True)
    source = sources.open("tracklets", root)
    per_video.embed(source, MeanColor(), work, A, Config())
    work.file(A, "input").write_text("")
    found = inputs.changes(work, source, [A], MeanColor.digest, Config(), whole=False)
    assert found == {A: "what it was made of is not known"}


def test_a_finished_data_set_is_not_taken_for_that_of_another_input(tmp_path, mean_color):
    root = paint(tmp_path / "in")
    run.run(job(root, tmp_path / "out"))
    before = content(tmp_path / "out")
    turn(root, B, "u2", 0, GREEN)
    said = (
        rf"is finished, and its input has changed since: 1 of 2 videos, '{B}': files of .*; give .* --update to write"
    )
    with pytest.raises(OutputError, match=said):
        run.run(job(root, tmp_path / "out"))
    assert content(tmp_path / "out") == before
    MeanColor.calls = 0
    run.run(replace(job(root, tmp_path / "out"), update=True))
    assert MeanColor.calls == 1
    run.run(job(root, tmp_path / "undisturbed"))
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    run.run(replace(job(root, tmp_path / "out"), update=True))
    assert MeanColor.calls == 1 + 2


def test_what_found_nothing_is_tried_again(tmp_path, mean_color):
    root = paint(tmp_path / "in")
    mean_color(lambda call, features: features * np.nan)
    with pytest.raises(RunError, match="no usable image"):
        run.run(job(root, tmp_path / "out"))
    mean_color()
    assert run.run(job(root, tmp_path / "out"))["selection"]["images"] == 12


def test_thresholds_of_a_changed_data_set_are_those_of_its_levels(tmp_path, mean_color, monkeypatch):
    """They are estimated from all videos: levels of a video that is as it was must not be kept with older ones."""
    root = paint(tmp_path / "in")
    calibrated = run.calibrated
    wrong = run.Thresholds(2, 0, 0)
    monkeypatch.setattr(run, "calibrated", lambda *a: replace(calibrated(*a), thresholds=wrong))
    interrupted(monkeypatch, job(root, tmp_path / "out"))
    monkeypatch.setattr(run, "calibrated", calibrated)
    run.run(job(root, tmp_path / "out"))
    run.run(job(root, tmp_path / "undisturbed"))
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_shards_that_were_written_before_a_change_are_written_again(tmp_path, mean_color):
    root = paint(tmp_path / "in")
    run.run(job(root, tmp_path / "out"))
    (tmp_path / "out" / "metrics.json").unlink()  # as if stopped just before the end
    turn(root, A, "t0", 0, BLUE)
    run.run(job(root, tmp_path / "out"))
    run.run(job(root, tmp_path / "undisturbed"))
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_other_settings_over_the_same_features(tmp_path, mean_color):
    root = paint(tmp_path / "in")
    run.run(job(root, tmp_path / "out"))
    with pytest.raises(OutputError, match=r"config\.preset: 'paper' there, 'cion_jax' now\); .*--update to write it"):
        run.run(job(root, tmp_path / "out", preset="cion_jax"))
    MeanColor.calls = 0
    run.run(replace(job(root, tmp_path / "out", preset="cion_jax"), update=True))
    assert MeanColor.calls == 0
    run.run(job(root, tmp_path / "undisturbed", preset="cion_jax"))
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    MeanColor.calls = 0
    run.run(replace(job(root, tmp_path / "out", max_tracklet_images=2), update=True))
    assert MeanColor.calls == 2  # other crops


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_cache_is_shared_by_outputs(tmp_path, mean_color, monkeypatch, suffix):
    root = paint(tmp_path / "in", suffix=suffix)
    cached = {"cache": tmp_path / "cache"}
    run.run(replace(job(root, tmp_path / "one"), **cached))
    assert MeanColor.calls == 2
    run.run(replace(job(root, tmp_path / "two", preset="cion_jax"), **cached))
    assert MeanColor.calls == 2
    run.run(job(root, tmp_path / "undisturbed", preset="cion_jax"))
    assert content(tmp_path / "two") == content(tmp_path / "undisturbed")
    turn(root, B, "u2", 0, GREEN)
    MeanColor.calls = 0
    shutil.rmtree(tmp_path / "one")
    run.run(replace(job(root, tmp_path / "one"), **cached))
    assert MeanColor.calls == 1
    monkeypatch.setattr(MeanColor, "digest", "1" * 64)
    run.run(replace(job(root, tmp_path / "three"), **cached))
    assert MeanColor.calls >= 3  # another extractor


@pytest.mark.parametrize("kind", ["npy", "arrow", "boxes", "sha256"])
def test_a_flipped_bit_in_a_cache_is_noticed(tmp_path, mean_color, kind, capsys):
    root, cached = paint(tmp_path / "in"), {"cache": tmp_path / "cache"}
    run.run(replace(job(root, tmp_path / "one"), **cached))
    for path in (tmp_path / "cache").rglob(f"*.{kind}"):
        data = bytearray(path.read_bytes())
        data[-9] ^= 4  # in none of them an end by which it is seen that one is cut short
        path.unlink()  # it is a second name of the file in the work folder
        path.write_bytes(data)
    MeanColor.calls = 0
    run.run(replace(job(root, tmp_path / "two"), **cached))
    assert MeanColor.calls == (2 if list((tmp_path / "cache").rglob(f"*.{kind}")) else 0)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert ("it is made anew" in capsys.readouterr().err) == bool(MeanColor.calls)


def features_of(root, by):
    """Mean colors by path or key, some missing, not normalized."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))[1:]
    return paths, np.array([[len(path), ord(path[-7]), 3] for path in paths], np.float64) * 7


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_features_of_others(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(run.page, "write", lambda folder, run: None)
    root, file = paint(tmp_path / "in"), tmp_path / f"features{suffix}"
    keys, features = features_of(root, "path")
    if suffix == ".npz":
        np.savez(file, keys=np.array(keys), features=features)
    else:
        pq.write_table(pa.table({"keys": keys, "features": features.tolist()}), file)
    the_job = replace(job(root, tmp_path / "out", embedder=None), features=str(file))
    metrics = run.run(the_job)
    assert metrics["rejected"] == {"no features given": 1}
    assert len(by_key(tmp_path / "out")) == 12
    assert metrics["embedder"]["name"] == str(file)
    rows = np.load(tmp_path / "out" / "work" / f"{run.Work(tmp_path).file(B, 'npy').name}")
    where = [keys.index(key) for key in keys if key.startswith(B)]
    np.testing.assert_allclose(rows, (features / np.linalg.norm(features, axis=1, keepdims=True))[where], rtol=1e-6)
    with pytest.raises(RunError, match="give --embedder or --features, not both"):
        run.run(replace(the_job, embedder="color"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"keys": ["a"]}, "it has no array features"),
        ({"keys": ["a"], "features": np.zeros(3)}, r"1 keys and features float64 \[3\]; expected .npz or .parquet"),
        ({"keys": ["a", "a"], "features": np.zeros((2, 3))}, "keys that occur twice, 1 of them"),
        ({"keys": ["a"], "features": np.array([[None]])}, "is no plain array"),
        (None, "no features at"),
        (b"nothing", "expected .npz or .parquet"),
    ],
)
def test_features_that_cannot_be_used(tmp_path, arrays, message):
    file = tmp_path / "features.npz"
    if isinstance(arrays, bytes):
        file.write_bytes(arrays)
    elif arrays:
        np.savez(file, **arrays)
    with pytest.raises(given.FeaturesError, match=message):
        given.GivenFeatures(str(file))


@pytest.mark.parametrize("names", [("key", "feature"), ("paths", "features")])
def test_features_as_our_own_program_writes_them(tmp_path, names):
    keys, features = ["v/t/a.jpg", "v/t/b.jpg"], np.eye(2, dtype=np.float32)
    np.savez(tmp_path / "f.npz", **{names[0]: np.array([key.encode() for key in keys]), names[1]: features})
    feature_file.write(tmp_path / "f.parquet", keys, features, {})
    images = [Image(key, "v", "t", 0, key) for key in reversed(keys)]
    for file in ("f.npz", "f.parquet"):
        np.testing.assert_array_equal(given.GivenFeatures(str(tmp_path / file)).of(images), features[::-1])

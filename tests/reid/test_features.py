"""Files of features, and embedding that goes on where a killed run stopped."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cion_jax.data.image_parts import Part
from cion_jax.reid import feature_file, resumable
from cion_jax.reid.feature_file import FeatureFile, FeatureFileError
from cion_jax.reid.resumable import Chunk


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    feature_file.write(path, ["a/1.jpg", "a/2.jpg", "ö.jpg"], features, {"model": "m"})
    file = FeatureFile(path)
    assert file.keys == ["a/1.jpg", "a/2.jpg", "ö.jpg"]
    np.testing.assert_array_equal(file.features, features)
    assert list(tmp_path.iterdir()) == [path]
    if suffix == ".parquet":
        assert json.loads(pq.read_schema(path).metadata[b"cion_jax"]) == {"model": "m"}


def test_keys_are_ends_of_paths_or_names(tmp_path):
    feature_file.write(tmp_path / "f.npz", ["query/1.jpg", "gallery/2.jpg"], np.ones((2, 1), np.float32), {})
    file = FeatureFile(tmp_path / "f.npz")
    paths = [tmp_path / "x/gallery/2.jpg", tmp_path / "query/1.jpg", tmp_path / "elsewhere/2.jpg", tmp_path / "3.jpg"]
    np.testing.assert_array_equal(file.rows(paths), [1, 0, 1, -1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.txt", b"", "ends in '.txt', expected a .npz or .parquet file"),
        ("f.npz", b"no zip", "cannot be read as a .npz file"),
        ("f.parquet", b"no table", "cannot be read as a Parquet file"),
        ("gone.npz", None, "no file of features"),
    ],
)
def test_other_files(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FeatureFileError, match=message):
        FeatureFile(tmp_path / name)


@pytest.fixture
def embedder(tmp_path):
    """Five files in parts of two, embedded as their lengths; `calls` are the files that were; may be killed."""
    paths = [tmp_path / f"{i}.jpg" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(b"x" * i)

    class Embedder:
        def __init__(self):
            self.paths, self.calls, self.left = paths, [], 99

        def make(self, part, what):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            some = part.read()
            self.calls += [path.name for path in some]
            sizes = [[path.stat().st_size] for path in some if path.stat().st_size]
            keys = [path.name for path in some if path.stat().st_size]
            return Chunk(np.array(sizes, np.float32), keys, [f"{p}: empty" for p in some if not p.stat().st_size])

        def run(self, choice=("checkpoint",)):
            groups = [paths[:2], paths[2:4], paths[4:]]
            parts = [Part(len(g), [p.stat().st_size for p in g], lambda g=g: g) for g in groups]
            return resumable.embed(self.make, parts, tmp_path / "out.npz", choice)

    return Embedder()


def test_a_killed_run_goes_on_where_it_stopped(embedder, capsys):
    embedder.left = 2
    with pytest.raises(KeyboardInterrupt):
        embedder.run()
    embedder.left = 99
    found = embedder.run()
    assert embedder.calls == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    np.testing.assert_array_equal(found.features, [[1], [2], [3], [4]])
    assert found.keys == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert found.unreadable == [f"{embedder.paths[0]}: empty"]
    assert "4 of 5 images were embedded by an earlier run" in capsys.readouterr().err


def test_what_has_changed_is_embedded_again(embedder, tmp_path):
    embedder.run()
    embedder.paths[3].write_bytes(b"longer")
    embedder.calls.clear()
    np.testing.assert_array_equal(embedder.run().features, [[1], [2], [6], [4]])
    assert embedder.calls == ["2.jpg", "3.jpg"]
    embedder.run(choice=("another",))
    assert len(embedder.calls) == 7
    damaged = next((tmp_path / ".out.npz.chunks").iterdir())
    damaged.write_bytes(b"half")
    embedder.run(choice=("another",))
    resumable.forget(tmp_path / "out.npz")
    assert not (tmp_path / ".out.npz.chunks").exists()


def test_keys_and_features_of_other_programs(tmp_path):
    keys = np.array([b"./query/1.jpg", rb"gallery\2.jpg"])
    np.savez(tmp_path / "f.npz", keys=keys, features=np.eye(2, 3, dtype=np.float32)[:, :, None, None])
    file = FeatureFile(tmp_path / "f.npz")
    assert file.features.shape == (2, 3)
    paths = [tmp_path / "gallery" / "2.jpg", tmp_path / "query" / "1.jpg", tmp_path / "query" / "2.jpg"]
    np.testing.assert_array_equal(file.rows(paths[:2]), [1, 0])


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_names_that_are_no_text_are_written_and_found(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    keys = ["v/\udcff.jpg", "v/a.jpg"]
    feature_file.write(path, keys, np.eye(2, dtype=np.float32), {})
    np.testing.assert_array_equal(FeatureFile(path).rows([tmp_path / key for key in keys]), [0, 1])

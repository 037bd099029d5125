"""Finding rows of an index."""

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from absl import flags

from cion_jax import search
from cion_jax.common.errors import UserError
from cion_jax.embed import embed_pictures, load_extractor
from cion_jax.reid import adaptation, feature_file, unlabeled
from cion_jax.reid import index as indexes
from cion_jax.reid.feature_file import FeatureFile
from tests import toy
from tests.reid.test_metrics import Between


def written(path, keys, features):
    np.savez(path, keys=np.array(keys), features=np.asarray(features, np.float32))
    return path


@pytest.mark.parametrize(("rows", "k"), [(5, 20), (300, 7), (300, 1)])
def test_exact_answers_are_those_of_all_distances_sorted(tmp_path, rows, k, monkeypatch):
    monkeypatch.setattr(indexes, "_BLOCK", 32)
    g = np.random.default_rng(rows)
    features = g.integers(-2, 3, (rows, 6)) + 0.1  # with rows that are equal
    query = g.standard_normal((4, 6)).astype(np.float32)
    index = indexes.opened(written(tmp_path / "f.npz", [f"{i}.jpg" for i in range(rows)], features))
    row, distance, said = index.search(query, k)
    whole = Between(query, np.asarray(index.rows_ND, np.float32)).rows(slice(None))
    order = np.argsort(whole.round(6), axis=1, kind="stable")[:, :k]
    np.testing.assert_allclose(distance, np.take_along_axis(whole, order, axis=1), atol=1e-3)  # rows are of float16
    assert np.array_equal(np.sort(row), np.sort(order)) or k < rows
    assert said == f"exact, {rows} rows"


def test_every_float16_is_widened_exactly():
    finite = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = finite[np.isfinite(finite)][None]
    np.testing.assert_array_equal(
        indexes._widened(finite, np.empty_like(finite, np.float32)) * np.float32(2.0**112), finite.astype(np.float32)
    )


def test_equal_rows_in_their_order(tmp_path):
    index = indexes.opened(written(tmp_path / "f.npz", list("abcdefgh"), np.ones((8, 2))))
    np.testing.assert_array_equal(index.search(np.ones((1, 2)), 3)[0], [[0, 1, 2]])


def test_the_map_is_made_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    file = written(tmp_path / "f.npz", ["a"], [[3.0, 4.0]])
    assert indexes.opened(file).rows_ND.dtype == np.float16
    monkeypatch.setattr(indexes, "FeatureFile", None)
    np.testing.assert_allclose(indexes.opened(file).rows_ND, [[0.6, 0.8]], atol=1e-3)
    monkeypatch.setattr(indexes, "FeatureFile", FeatureFile)
    written(file, ["a", "b"], [[3.0, 4.0], [1, 0]])
    assert indexes.opened(file).keys == ["a", "b"]


def test_tracklets_are_folders(tmp_path):
    keys = ["v/1/a.jpg", "v/1/b.jpg", "v/2/a.jpg"]
    index = indexes.opened(written(tmp_path / "f.npz", keys, [[1, 0], [0, 1], [0, 1]])).grouped()
    assert index.keys == ["v/1", "v/2"]
    np.testing.assert_allclose(index.rows_ND, [[0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-3)
    with pytest.raises(indexes.GalleryError, match="no key of the index lies in a folder, got 'a'"):
        indexes.opened(written(tmp_path / "g.npz", ["a"], [[1, 0]])).grouped()


def test_scann_says_how_much_it_finds(tmp_path, monkeypatch):
    pytest.importorskip("scann")
    monkeypatch.setattr(indexes, "EXACT", 1000)
    g = np.random.default_rng(0)
    features = g.standard_normal((3000, 16))
    index = indexes.opened(written(tmp_path / "f.npz", [f"{i}" for i in range(3000)], features))
    row, distance, said = index.search(features[:5], 10)
    np.testing.assert_array_equal(row[:, 0], np.arange(5))
    np.testing.assert_allclose(distance[:, 0], 0, atol=1e-2)
    assert said.startswith("ScaNN, 3,000 rows, finds ")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.ones((1, 3)), "the queries have 3 features, the index 2; embed both"),
        (np.array([[1, np.nan]]), "features of query 0 are not finite; 1 of 1"),
    ],
)
def test_wrong_queries(tmp_path, query, message):
    with pytest.raises(indexes.GalleryError, match=message):
        indexes.opened(written(tmp_path / "f.npz", ["a"], [[1, 0]])).search(query, 1)


def test_an_index_that_is_not_finite(tmp_path):
    with pytest.raises(indexes.GalleryError, match="1 rows that are not finite, the first of b"):
        indexes.opened(written(tmp_path / "f.npz", ["a", "b"], [[1, 0], [np.inf, 0]]))


def test_of_features_in_memory():
    index = indexes.Index.of(["a", "b"], np.array([[3.0, 4.0], [0, 0]]))
    np.testing.assert_allclose(index.rows_ND, [[0.6, 0.8], [0, 0]], atol=1e-3)
    with pytest.raises(indexes.GalleryError, match="1 features are not finite, the first of b"):
        indexes.Index.of(["a", "b"], np.array([[1, 0], [np.nan, 0]]))


@pytest.fixture
def command(monkeypatch):
    """Runs the program in this process with flags of its own."""

    def run(*args):
        values = flags.FlagValues()
        monkeypatch.setattr(flags, "FLAGS", values)
        with monkeypatch.context() as patch:
            for kind in ("string", "integer", "bool", "float", "enum", "multi_string"):
                define = partial(getattr(flags, f"DEFINE_{kind}"), flag_values=values)
                patch.setattr(flags, f"DEFINE_{kind}", define)
            search.define_flags()
        values(["search", *args])
        search.main([])

    return run


def test_command(tmp_path, command, capsys):
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for name in "ab":
        cv2.imwrite(str(gallery / f"{name}.jpg"), np.full((8, 4, 3), 90, np.uint8))
    index = written(tmp_path / "f.npz", ["a.jpg", "b.jpg"], [[1, 0], [0, 1]])
    query = written(tmp_path / "q.npz", ["a.jpg"], [[1, 0.1]])
    scores = {"metric": "cosine", "rerank": False, "tpr_at_fpr": [{"fpr": 0.001, "tpr": 0.5, "threshold": 0.5}]}
    (tmp_path / "score.json").write_text(json.dumps(scores))
    answer, sheet = tmp_path / "answer.json", tmp_path / "sheet.png"
    known = [f"--index={index}", f"--query={query}", f"--scores={tmp_path / 'score.json'}"]
    command(*known, "--fpr=1e-3", f"--output={answer}", f"--sheet={sheet}", f"--images={gallery}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["exact, 2 rows, nearer than 0.5000", "a.jpg: 1 found"]
    assert lines[2].split() == ["1", "0.0050", "a.jpg"]
    assert json.loads(answer.read_text())["answers"] == [
        {"query": "a.jpg", "found": [{"key": "a.jpg", "distance": pytest.approx(0.00496, abs=1e-4)}]}
    ]
    assert cv2.imread(str(sheet)).shape[0] > 2 * 128
    with pytest.raises(UserError, match=r"knows false positive rates 0.001, got 0.01"):
        command(*known, "--fpr=1e-2")
    with pytest.raises(UserError, match="leave --threshold out"):
        command(*known, "--fpr=1e-3", "--threshold=0.2")
    with pytest.raises(UserError, match=r"no image in --query=.*gone; expected an image, a folder of some, or"):
        command(f"--index={index}", f"--query={tmp_path / 'gone'}")
    with pytest.raises(UserError, match="queries that are images need --checkpoint"):
        command(f"--index={index}", f"--query={gallery}")


def adapted_file(path, keys, features, digest):
    feature_file.write(path, keys, np.asarray(features, np.float32), {"adapt": digest and {"digest": digest}})
    return path


def test_features_are_compared_only_if_they_are_adapted_alike(tmp_path, command, capsys):
    index = adapted_file(tmp_path / "f.npz", ["a.jpg", "b.jpg"], [[1, 0], [0, 1]], "1" * 64)
    query = adapted_file(tmp_path / "q.parquet", ["a.jpg"], [[1, 0.1]], "1" * 64)
    command(f"--index={index}", f"--query={query}")
    assert "a.jpg: 2 found" in capsys.readouterr().out
    for other, said in (("2" * 64, "222222222222"), (None, "not at all")):
        query = adapted_file(tmp_path / "q.parquet", ["a.jpg"], [[1, 0.1]], other)
        with pytest.raises(UserError, match=f"adapted as {said}, the index's as 111111111111; give both the same"):
            command(f"--index={index}", f"--query={query}")
    with pytest.raises(UserError, match="features of a file are taken as they are"):
        command(f"--index={index}", f"--query={query}", "--adapt=x")
    scores = {"metric": "cosine", "rerank": False, "tpr_at_fpr": [{"fpr": 0.001, "tpr": 0.5, "threshold": 0.5}]}
    (tmp_path / "score.json").write_text(json.dumps(scores))
    with pytest.raises(UserError, match="is of features adapted as not at all, the index as 111111111111"):
        command(f"--index={index}", f"--query={query}", "--fpr=1e-3", f"--scores={tmp_path / 'score.json'}")


def test_queries_are_adapted_like_the_index(tmp_path, command, capsys):
    """Embedded and adapted with a toy network, the gallery's own image is found at distance 0."""
    rng, gallery = np.random.default_rng(0), tmp_path / "gallery"
    for name in ("c1/1/a", "c1/1/b", "c2/1/a", "c2/1/b"):
        (gallery / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(gallery / f"{name}.png"), rng.integers(0, 256, (32, 16, 3)).astype(np.uint8))
    extractor = load_extractor("random:toy@32x16")
    data = unlabeled.opened(gallery)
    found = embed_pictures(extractor, data.read, data.keys, "gallery").features
    assert found.shape == (4, toy.Toy.features)
    origin = {"data": "gallery", "model": "toy", "extractor": extractor.digest()}
    learned = adaptation.learn(found, data.camera, data.tracklet, origin)
    adaptation.save(tmp_path / "a.safetensors", learned)
    index = tmp_path / "f.npz"
    keys = [str(path.relative_to(gallery)) for path in map(Path, data.keys)]
    feature_file.write(index, keys, learned(found, data.camera), {"adapt": learned.about()})
    given = [f"--index={index}", f"--query={gallery}", "--checkpoint=random:toy@32x16"]
    command(*given, f"--adapt={tmp_path / 'a.safetensors'}", "--top=1")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("    1")]
    assert [line[2] for line in lines] == keys
    assert max(float(line[1]) for line in lines) < 1e-3
    with pytest.raises(UserError, match="queries' features are adapted as not at all, the index's as"):
        command(*given)


def test_what_another_network_made_is_refused(tmp_path, command):
    """Two networks' features of one width would be compared, and anybody found."""
    for name, made in (("f.npz", "1" * 64), ("q.npz", "2" * 64)):
        about = {"extractor": made, "model": "m"}
        feature_file.write(tmp_path / name, ["a.jpg"], np.eye(1, 2, dtype=np.float32), about)
    given = [f"--index={tmp_path / 'f.npz'}", f"--query={tmp_path / 'q.npz'}"]
    with pytest.raises(UserError, match=r"is of the network m \(222222222222\), the index of m \(111111111111\)"):
        command(*given)
    command(*given, "--allow_other_network")
    query = tmp_path / "a.png"
    cv2.imwrite(str(query), np.full((8, 4, 3), 90, np.uint8))
    with pytest.raises(UserError, match=r"--checkpoint=random:toy@32x16 is of the network toy .*, the index of m"):
        command(given[0], f"--query={query}", "--checkpoint=random:toy@32x16")
    point = {"fpr": 0.001, "tpr": 0.5, "threshold": 0.5}
    scores = {"metric": "cosine", "rerank": False, "tpr_at_fpr": [point], "extractor": "2" * 64, "model": "m"}
    (tmp_path / "score.json").write_text(json.dumps(scores))
    with pytest.raises(UserError, match="evaluate and embed with the same --checkpoint"):
        command(given[0], given[0].replace("index", "query"), "--fpr=1e-3", f"--scores={tmp_path / 'score.json'}")


@pytest.mark.parametrize("threshold", ["NaN", "-1", '"0.5"', "null"])
def test_a_threshold_that_is_no_distance_is_refused(tmp_path, command, threshold):
    index = written(tmp_path / "f.npz", ["a.jpg"], [[1, 0]])
    points = f'[{{"fpr": 0.001, "threshold": {threshold}}}]'
    (tmp_path / "score.json").write_text(f'{{"metric": "cosine", "rerank": false, "tpr_at_fpr": {points}}}')
    with pytest.raises(UserError, match="thresholds that are no cosine distances"):
        command(f"--index={index}", f"--query={index}", "--fpr=1e-3", f"--scores={tmp_path / 'score.json'}")


def test_pictures_of_a_sheet_that_are_not_there_are_told(tmp_path, command, capsys):
    index = written(tmp_path / "f.npz", ["a.jpg"], [[1, 0]])
    command(f"--index={index}", f"--query={index}", f"--sheet={tmp_path / 's.png'}", f"--images={tmp_path / 'no'}")
    assert "2 of 2 pictures of the sheet are not there, the first: " in capsys.readouterr().err

"""A benchmark from files to figures."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.common.errors import UserError
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.evaluate import _benchmarks, _check_distinct, evaluate, score, table
from cion_jax.reid import adaptation, benchmarks, metrics, on_device, unlabeled
from cion_jax.reid.adaptation import learn
from cion_jax.reid.analysis import analyze
from cion_jax.reid.distances import ScoreError
from cion_jax.reid.feature_file import FeatureFile, FeatureFileError
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.extractor import Flipped

RED, GREEN, BLUE = (250, 5, 5), (5, 250, 5), (5, 5, 250)


class MeanColor(nnx.Module):
    """Stands in for a backbone."""

    features = 3

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(3))

    def __call__(self, x_BHWC, *, train=False, key=None):
        return x_BHWC.mean((1, 2)) * self.scale[...]


@pytest.fixture
def street(tmp_path):
    """A red and a green person, and distractors: one red, one blue; one crop of nobody."""
    crops = {
        "query/0001_c1s1_000001_00": RED,
        "query/0002_c1s1_000002_00": GREEN,
        "query/0003_c1s1_000003_00": BLUE,  # not in the gallery
        "bounding_box_test/0001_c1s1_000004_00": RED,  # the query's camera
        "bounding_box_test/0000_c2s1_000005_00": (250, 15, 5),
        "bounding_box_test/0001_c2s1_000006_00": (250, 60, 5),
        "bounding_box_test/0002_c2s1_000007_00": (60, 250, 5),
        "bounding_box_test/0002_c3s1_000008_00": GREEN,
        "bounding_box_test/0000_c3s1_000009_00": BLUE,
        "bounding_box_test/-1_c3s1_000010_00": RED,
    }
    for name, color in crops.items():
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((64, 32, 3), color[::-1], np.uint8))
    return tmp_path


@pytest.fixture
def mean_color():
    return Backbone("mean_color", *models.split(MeanColor()), Preprocessing((16, 8)), step=1200, batch_size=4)


def test_scores_by_hand(street, mean_color):
    result = evaluate(mean_color, benchmarks.load("market1501", street))
    # Red: the red distractor comes first, so 1/2. Green: both matches first, so 1. Blue is not counted.
    assert (result["mAP"], result["mINP"]) == (0.75, 0.75)
    assert (result["rank1"], result["rank5"], result["rank10"]) == (0.5, 1, 1)
    assert (result["queries"], result["valid_queries"], result["gallery"]) == (3, 2, 6)
    assert result["junk"] == {"query": 0, "gallery": 1}
    # Nearest of different people: red and the red distractor. Of the 3 matches only one, green, is nearer.
    assert [(point["fpr"], point["tpr"]) for point in result["tpr_at_fpr"]] == [(f, 1 / 3) for f in metrics.FPRS]
    first, head, line = table([result]).splitlines()
    assert first == "mean_color (step 1,200), cosine distance, not adapted"
    assert result["adapt"] is None
    assert head.split()[:7] == ["benchmark", "mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "TPR@0.01%"]
    assert line.split()[1:9] == ["75.00", "75.00", "50.00", "100.00", "100.00", "33.33", "33.33", "33.33"]
    assert line.endswith("2 of 3, 6, 0")
    assert "mean_color (weights of a file)" in table([result | {"step": None}])


def test_unreadable_images_are_counted_and_the_rest_is_scored(street, mean_color, capsys):
    broken = street / "bounding_box_test" / "0000_c2s1_000005_00.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    result = evaluate(mean_color, benchmarks.load("market1501", street))
    assert (result["mAP"], result["gallery"]) == (1, 5)  # without the distractor that came first
    assert len(result["unreadable"]["gallery"]) == 1
    assert "gallery: 1 of 6 images left out, unreadable:\n  " in capsys.readouterr().err
    assert table([result]).endswith("2 of 3, 5, 1")


def test_expansion_and_reranking_are_used(street, mean_color):
    benchmark = benchmarks.load("market1501", street)
    assert evaluate(mean_color, benchmark, expansion=1)["mAP"] == 0.75  # of itself alone: no change
    with pytest.raises(ScoreError, match=r"1 to 9 neighbors .* got 10"):
        evaluate(mean_color, benchmark, expansion=10)
    with pytest.raises(ScoreError, match="re-ranking needs more than 20 images"):
        evaluate(mean_color, benchmark, reranked=True)


def test_an_accelerator_makes_the_products(street, mean_color, monkeypatch):
    used = []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(
        on_device, "product", lambda gallery_GD, real=on_device.product: used.append(1) or real(gallery_GD)
    )
    found = evaluate(mean_color, benchmarks.load("market1501", street))
    monkeypatch.undo()
    assert used == [1]
    expected = evaluate(mean_color, benchmarks.load("market1501", street))
    assert (found["mAP"], found["mINP"], found["rank1"]) == (expected["mAP"], expected["mINP"], expected["rank1"])


def test_nothing_readable(street, mean_color):
    for path in (street / "query").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ScoreError, match="0 readable images of the query, of 3"):
        evaluate(mean_color, benchmarks.load("market1501", street))


def test_one_person_alone(street, mean_color, tmp_path):
    """Nobody is there to be mistaken for: everything is found, and there is no false positive to count."""
    for path in street.rglob("*.jpg"):
        if not path.name.startswith("0002"):
            path.unlink()
    scored = score(mean_color, benchmarks.load("market1501", street))
    assert (scored.result["mAP"], scored.result["tpr_at_fpr"]) == (1, [])
    assert table([scored.result]).splitlines()[2].split()[6:9] == ["nan"] * 3
    scored.result["checkpoint"] = "x"
    assert "Distances of pairs" in report_of(tmp_path, scored)


def report_of(folder, scored):
    pytest.importorskip("matplotlib")
    from cion_jax.reid import report

    return report.write(folder / "report", [scored]).read_text()


def test_several_benchmarks_in_one_table(street, mean_color):
    results = [evaluate(mean_color, benchmarks.load(name, street)) for name in ("market1501", "market1501")]
    lines = table([results[0], results[1] | {"label": "train", "rerank": True}]).splitlines()
    assert lines[2].startswith("market1501             75.00")
    assert lines[3].startswith("market1501 (train)     75.00")


def stored(folder, suffix, features=None, **other):
    """A file of features of a street, made by another program: mean colors of its images, keys from the root."""
    paths = sorted(folder.rglob("*_*.jpg"))
    rows = np.array([cv2.imread(str(path)).mean((0, 1)) - 123 for path in paths], np.float32)
    keys = [path.relative_to(folder).as_posix() for path in paths]
    file = folder / f"features{suffix}"
    if suffix == ".npz":
        np.savez(file, **({"keys": keys, "features": rows if features is None else features} | other))
    else:
        pq.write_table(pa.table({"path": keys, "feature": list(rows) if features is None else features}), file)
    return file


def lit(tmp_path):
    """Three people seen by cameras 1 and 2, of which 2 adds the same light to whoever it sees; unlabeled ones too."""
    people, light = {1: (5, 0, 0), 2: (0, 5, 0), 3: (0, 0, 5)}, {1: (0, 0, 0), 2: (0, 40, 30)}
    keys, rows = [], []
    for folder, cameras in (("query", (1,)), ("bounding_box_test", (2,)), ("bounding_box_train", (1, 2))):
        for (person, look), camera, image in itertools.product(people.items(), cameras, (1, 2)):
            keys.append(f"{folder}/{person:04d}_c{camera}s1_{image:06d}_00.jpg")
            rows.append(np.sum([look, light[camera], (20, 0, image / 100)], axis=0))
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / keys[-1]).touch()
    np.savez(tmp_path / "f.npz", keys=keys, features=np.array(rows, np.float32))
    return benchmarks.load("market1501", tmp_path), FeatureFile(tmp_path / "f.npz")


def test_adapted_features(tmp_path, capsys):
    benchmark, file = lit(tmp_path)
    assert evaluate(file, benchmark)["rank1"] < 1
    data = unlabeled.opened(tmp_path)
    rows = file.features[file.rows([Path(key) for key in data.keys])]
    found = learn(rows, data.camera, data.tracklet, {"data": "train", "model": "f", "extractor": ""})
    result = evaluate(file, benchmark, adaptation=found)
    assert result["rank1"] == 1
    assert (result["adapt"]["tracklets"], result["adapt"]["unseen"]) == (6, {"query": 0, "gallery": 0})
    assert ", adapted to train\n" in table([result])
    assert capsys.readouterr().err == ""
    strangers = dataclasses.replace(found, cameras=("c1", "c9"))
    result = evaluate(file, benchmark, adaptation=strangers)
    assert result["adapt"]["unseen"] == {"query": 0, "gallery": 6}
    assert "query and gallery: 6 of 12 images are of cameras that nothing was learned from" in capsys.readouterr().err
    own = evaluate(file, benchmark, adaptation=dataclasses.replace(strangers, own_means=True))
    assert (own["rank1"], own["adapt"]["own_means"], own["adapt"]["unseen"]) == (1, True, {"query": 0, "gallery": 0})


def test_adapting_by_command(tmp_path):
    lit(tmp_path)
    learned, scores = tmp_path / "a.safetensors", tmp_path / "s.json"
    given = [f"--features={tmp_path / 'f.npz'}", f"--data={tmp_path}"]
    done = run(*given, f"--adapt={tmp_path}", f"--adapt_output={learned}", f"--output={scores}")
    assert done.returncode == 0, done.stderr
    assert f"adapted to {tmp_path.name} (6 tracklets; camera means: those of 2 cameras)" in done.stderr
    result = json.loads(scores.read_text())
    assert (result["rank1"], result["adapt"]["digest"]) == (1, adaptation.load(learned).digest())
    again = run(*given, "--camera_means=own")
    assert (again.returncode, "--camera_means say what to do with --adapt=DATA" in again.stderr) == (2, True)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_features_of_another_program(street, suffix):
    """Channels in another order and their offset do not matter to which color is near."""
    result = evaluate(FeatureFile(stored(street, suffix)), benchmarks.load("market1501", street), "euclidean")
    assert (result["mAP"], result["rank1"], result["valid_queries"]) == (0.75, 0.5, 2)
    assert (result["model"], result["step"]) == (f"features of features{suffix}", None)


def test_images_without_features_are_counted(street, capsys):
    file = stored(street, ".npz")
    with np.load(file) as arrays:
        keys, features = arrays["keys"], arrays["features"]
    kept = [not key.startswith("bounding_box_test/0000_c2s1") for key in keys]
    np.savez(file, paths=keys[kept], features=features[kept])
    result = evaluate(FeatureFile(file), benchmarks.load("market1501", street), "euclidean")
    assert (result["mAP"], result["gallery"]) == (1, 5)  # without the distractor that came first
    assert "0000_c2s1_000005_00.jpg: no features in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".npz", {"features": np.ones((3, 2), np.float32)}, r"10 keys and features \(3, 2\) float32, expected N keys"),
        (".npz", {"keys": ["a.jpg"] * 10}, "9 keys twice"),
        (
            ".npz",
            {"keys": [f"other{i}.jpg" for i in range(10)]},
            "no features of any of 3 images; got keys like .'other0",
        ),
        (".npz", {"features": np.array([None] * 10)}, "cannot be read as a .npz file of plain arrays"),
        (".parquet", {"features": [[1.0, 2.0]] * 9 + [[1.0]]}, r"features of 2 widths \(\[1, 2\]\), expected one"),
        (".parquet", {"features": [1.0] * 10}, "features are double, expected lists of numbers"),
    ],
)
def test_wrong_files_of_features(street, suffix, content, message):
    with pytest.raises(FeatureFileError, match=message):
        evaluate(FeatureFile(stored(street, suffix, **content)), benchmarks.load("market1501", street))


def test_features_that_are_not_finite(street):
    features = np.ones((10, 3), np.float32)
    features[:, 1] = np.nan
    with pytest.raises(ScoreError, match="must be finite, got NaN or infinity in 3 of 3 rows of the query"):
        evaluate(FeatureFile(stored(street, ".npz", features)), benchmarks.load("market1501", street))


def test_mirror_images_are_averaged():
    class Left:
        """Takes the red of the leftmost column as its one feature."""

        name, step, size, features = "left", None, (2, 2), 1

        def __call__(self, images):
            return np.array([[image[:, 0, 0].mean()] for image in images], np.float32)

    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 0, 0], image[:, 1, 0] = 10, 30
    flipped = Flipped(Left())
    np.testing.assert_array_equal(flipped([image, image[:, :1]]), [[20], [10]])
    assert flipped([]).shape == (0, 1)


def test_report_shows_right_and_wrong(street, mean_color, tmp_path):
    scored = score(mean_color, benchmarks.load("market1501", street))
    scored.result["checkpoint"] = "<b>&"
    (street / "bounding_box_test" / "0000_c2s1_000005_00.jpg").unlink()  # since it was embedded
    page = report_of(tmp_path, scored)
    worst = page[page.index("The worst queries") :]
    kinds = re.findall('<figure class="(query|right|wrong)" title="(-?\\d+)', worst)
    # Red, the worse one: its own camera's image is left out, the distractor is nearest.
    assert kinds[:3] == [("query", "0001"), ("wrong", "0000"), ("right", "0001")]
    assert "no picture" in worst
    assert "&lt;b&gt;&amp;" in page
    assert not re.search(r"https?://(?!www.w3.org|purl.org|creativecommons|matplotlib)", page)  # but names of XML
    assert "<script" not in page


def test_pairs_of_cameras_and_distances(street, mean_color):
    scored = score(mean_color, benchmarks.load("market1501", street))
    query, gallery = scored.benchmark.query, scored.benchmark.gallery
    found = analyze(scored.distances, scored.pairing, query.camera, gallery.camera)
    # Camera 2: red after a distractor (1/2), green first (1). Camera 3: green first.
    assert found.camera_pairs == {(1, 2): (0.75, 2), (1, 3): (1, 1)}
    assert (found.same.sum(), found.different.sum()) == (3, 8)  # red: 1 and 4, without junk; green: 2 and 4


def run(*args):
    model = [] if any(arg.startswith("--features") for arg in args) else ["--checkpoint=random:resnet18_ibn@32x16"]
    command = [sys.executable, "-m", "cion_jax.evaluate", *model, *args]
    return subprocess.run(command, capture_output=True, text=True)


def test_command(street, tmp_path):
    output = tmp_path / "new" / "result.json"
    done = run("--benchmark=market1501", f"--data={street}", f"--output={output}", "--metric=euclidean")
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert result["checkpoint"] == "random:resnet18_ibn@32x16"
    assert (result["step"], result["metric"], result["valid_queries"]) == (0, "euclidean", 2)
    assert 0 < result["mAP"] <= 1
    assert f"{100 * result['mAP']:.2f}" in done.stdout
    assert "resnet18_ibn (untrained)" in done.stdout
    assert "gallery: 6/6" in done.stderr


@pytest.mark.parametrize(
    ("chosen", "data", "options", "message"),
    [
        (["market1501"], None, {}, "where is market1501. Give its folder, as --benchmark=market1501=DIR or --data=DIR"),
        (["market1501"], "/nonexistent", {}, "no folder /nonexistent/query"),
        (["market"], ".", {}, "did you mean 'market1501'"),
        (["market1501=a", "msmt17"], None, {}, "NAME=DIR,NAME=DIR without it, got 'market1501=a,msmt17'"),
        (["market1501=a"], "b", {}, "got 'market1501=a' and --data=b"),
        (["market1501=a", "mars=b"], None, {"pattern": "x"}, "none of market1501, mars has --pattern, got 'x'"),
    ],
)
def test_mistakes_in_naming_benchmarks(chosen, data, options, message):
    with pytest.raises(UserError, match=message):
        _benchmarks(chosen, data, **options)


def test_mistakes_end_with_one_message(street):
    done = run("--checkpoint=x", "--features=y.npz", f"--data={street}")
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: give either --checkpoint, for features to be made, or --features=FILE, for those of a file\n"
    )


def test_features_that_tell_nobody_apart_are_refused(street, capsys):
    paths = sorted(str(path.relative_to(street)) for path in street.rglob("*.jpg"))
    benchmark = benchmarks.load("market1501", street)
    np.savez(street / "same.npz", keys=paths, features=np.full((len(paths), 3), 0.5, np.float32))
    score(FeatureFile(street / "same.npz"), benchmark)
    assert "warning: the features of all 6 images or tracklets of the gallery are the same" in capsys.readouterr().err
    with pytest.raises(ScoreError, match="features of all 20 images or tracklets of the gallery are the same: the net"):
        _check_distinct(np.full((20, 3), 0.5, np.float32))
    features = np.random.default_rng(0).random((len(paths), 3), np.float32)
    features[[i for i, path in enumerate(paths) if "0000_c2" in path]] = 0
    np.savez(street / "zero.npz", keys=paths, features=features)
    score(FeatureFile(street / "zero.npz"), benchmark)
    assert "warning: the features of 1 of 6 in the gallery are all 0" in capsys.readouterr().err

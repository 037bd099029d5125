"""A benchmark from files to figures."""

import json
import subprocess
import sys

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import evaluate, models
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.reid import benchmarks
from cion_jax.reid.distances import ScoreError
from cion_jax.weights.backbone import Backbone

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
    result = evaluate.evaluate(mean_color, benchmarks.load("market1501", street))
    # Red: the red distractor comes first, so 1/2. Green: both matches first, so 1. Blue is not counted.
    assert (result["mAP"], result["mINP"]) == (0.75, 0.75)
    assert (result["rank1"], result["rank5"], result["rank10"]) == (0.5, 1, 1)
    assert (result["queries"], result["valid_queries"], result["gallery"]) == (3, 2, 6)
    assert result["junk"] == {"query": 0, "gallery": 1}
    assert evaluate.table(result).splitlines() == [
        "market1501, mean_color (step 1,200), cosine distance",
        "      mAP     mINP   Rank-1   Rank-5  Rank-10",
        "    75.00    75.00    50.00   100.00   100.00",
        "2 of 3 queries counted, 6 gallery images, 0 files left out",
    ]
    assert "mean_color (weights of a file)" in evaluate.table(result | {"step": None})


def test_unreadable_images_are_counted_and_the_rest_is_scored(street, mean_color, capsys):
    broken = street / "bounding_box_test" / "0000_c2s1_000005_00.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    result = evaluate.evaluate(mean_color, benchmarks.load("market1501", street))
    assert (result["mAP"], result["gallery"]) == (1, 5)  # without the distractor that came first
    assert len(result["unreadable"]["gallery"]) == 1
    assert "gallery: 1 of 6 images left out, unreadable:\n  " in capsys.readouterr().err
    assert evaluate.table(result).endswith("1 files left out")


def test_expansion_and_reranking_are_used(street, mean_color):
    benchmark = benchmarks.load("market1501", street)
    assert evaluate.evaluate(mean_color, benchmark, expansion=1)["mAP"] == 0.75  # of itself alone: no change
    with pytest.raises(ScoreError, match=r"1 to 9 neighbors .* got 10"):
        evaluate.evaluate(mean_color, benchmark, expansion=10)
    with pytest.raises(ScoreError, match="re-ranking needs more than 20 images"):
        evaluate.evaluate(mean_color, benchmark, reranked=True)


def test_nothing_readable(street, mean_color):
    for path in (street / "query").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ScoreError, match="0 readable queries and 6 gallery images"):
        evaluate.evaluate(mean_color, benchmarks.load("market1501", street))


def run(*args):
    command = [sys.executable, "-m", "cion_jax.evaluate", "--checkpoint=random:resnet18_ibn@32x16", *args]
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
    ("args", "message"),
    [
        (["--data=/nonexistent"], "no folder /nonexistent/query"),
        (["--benchmark=market", "--data=."], "did you mean 'market1501'"),
    ],
)
def test_mistakes(args, message):
    done = run(*args)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr

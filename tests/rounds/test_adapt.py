"""An adaptation from pictures to the exported network, in seconds."""

import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

import cion_jax
from cion_jax.adapt import adapt, job_of
from cion_jax.common.errors import UserError
from cion_jax.rounds.run import LeftError
from tests import toy

PEOPLE, CAMERAS, IMAGES = 10, 2, 4
NETWORK = f"random:{toy.Toy.__name__.lower()}@32x16"
RECIPE = Path(__file__).with_name("recipe.py")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Tracks of people in colored clothes, named as Market-1501's files are."""
    folder = tmp_path_factory.mktemp("people")
    for person in range(1, PEOPLE + 1):  # 0 is nobody
        clothes = np.random.default_rng(person).integers(0, 256, (2, 3))
        for camera in range(1, CAMERAS + 1):
            for i in range(IMAGES):
                rng = np.random.default_rng([person, camera, i])
                picture = np.full((32, 16, 3), 90, np.uint8)
                picture[4:16, 4:12], picture[16:30, 5:11] = clothes
                picture = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{person:04d}_c{camera}s1_{1000 * person + 10 * i:06d}_01.jpg"), picture)
    return folder


def run(people, output, asked_to_leave=lambda: False, **changes):
    options = {"rounds": 2, "steps": 3, "config": str(RECIPE)} | changes
    return adapt(job_of("market1501", str(people), NETWORK, output, {}, **options), asked_to_leave)


@pytest.fixture(scope="module")
def done(people, tmp_path_factory):
    output = tmp_path_factory.mktemp("adapt") / "out"
    run(people, output)
    return output


def test_writes_the_network_and_a_report(done):
    report = json.loads((done / "report.json").read_text())
    assert report["rounds"][0]["round"] == 0
    assert len(report["rounds"]) >= 2
    best = max(report["rounds"], key=lambda row: row["quality"])
    assert report["kept"] == best["round"]
    kept = cion_jax.load(best["checkpoint"])
    assert cion_jax.load(done / "export" / "weights.safetensors").digest() == kept.digest()
    assert {path.name for path in (done / "export").iterdir()} == {
        *("weights.safetensors", "weights.safetensors.md", "weights.safetensors.sha256"),
        *("model.onnx", "model.onnx.md", "model.onnx.sha256"),
    }
    page = (done / "report.html").read_text()
    assert page.count('class="pair"') == 12
    assert "data:image/jpeg;base64," in page


def test_again_it_changes_nothing(people, done):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file() and path.suffix != ".html"}
    run(people, done)
    after = {path: path.read_bytes() for path in done.rglob("*") if path.is_file() and path.suffix != ".html"}
    assert before == after


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 1, 2], ids=["before identities", "before training", "while training"])
def test_left_and_resumed_it_is_the_undisturbed_one(people, done, tmp_path, calls):
    asked = itertools.chain([False] * calls, itertools.repeat(True))
    with pytest.raises(LeftError):
        run(people, tmp_path / "out", lambda: next(asked))
    assert (tmp_path / "out" / "round1" / "run" / "checkpoints").is_dir() == (calls == 2)
    run(people, tmp_path / "out")
    texts = [(folder / "report.json").read_text().replace(str(folder), "") for folder in (done, tmp_path / "out")]
    assert texts[0] == texts[1]
    files = [load_file(folder / "export" / "weights.safetensors") for folder in (done, tmp_path / "out")]
    for name, array in files[0].items():
        np.testing.assert_array_equal(files[1][name], array, err_msg=name)


@pytest.mark.slow
def test_by_distillation(people, tmp_path):
    run(people, tmp_path / "out", rounds=1, config=f"{RECIPE}:distill")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["round"] for row in report["rounds"]] == [0, 1]
    assert json.loads((tmp_path / "out/round1/run/config.json").read_text())["task"] == "distill"


def test_another_job_does_not_take_the_folder(people, done):
    with pytest.raises(UserError, match="was begun with other settings: steps was 3, is 4"):
        run(people, done, steps=4)


def test_a_data_set_is_read_where_it_came_from(people, done, tmp_path):
    job = job_of("", str(done / "round1" / "data"), "osnet_x0_25=w.pth", tmp_path, {})
    assert (job.source, job.input, job.checkpoint) == ("market1501", people, "file:osnet_x0_25=w.pth")
    with pytest.raises(UserError, match="is no data set of data_prep; say its format, --source="):
        job_of("", str(people), NETWORK, tmp_path, {})


def test_too_few_tracks(people, tmp_path):
    (tmp_path / "few").mkdir()
    for path in sorted(people.iterdir())[: 3 * IMAGES]:
        shutil.copy(path, tmp_path / "few")
    with pytest.raises(UserError, match="3 tracks of two images or more that can be read, expected at least 8"):
        run(tmp_path / "few", tmp_path / "out")

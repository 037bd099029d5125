"""What unlabeled tracklets teach: where they come from, what is learned, the file that holds it."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy

from cion_jax.data.records import DatasetError
from cion_jax.reid import adaptation, unlabeled
from cion_jax.reid.adaptation import AdaptationError
from cion_jax.reid.unlabeled import UnlabeledError
from data_prep.output import shards
from data_prep.types import Image

ROWS = np.array([[0.96, 0.28], [0.96, -0.28], [9.6, 2.8], [-0.96, 0.28], [-0.96, -0.28]], np.float32)
CAMERAS = ["c2", "c2", "c2", "c1", "c1"]


@pytest.fixture
def learned():
    return adaptation.learn(ROWS, CAMERAS, np.array([0, 0, 1, 2, 3]), {"data": "D", "model": "m", "extractor": "abc"})


def test_learned_by_hand(learned):
    """Means (-0.96, 0) of c1 and (0.96, 0.28 / 3) of c2, (0.192, 0.056) of all.

    Tracklets spread about them by (0.0087 + 0.0348 + 0.0784 + 0.0784) / (4 - 2) = 0.1002, the means about that of
    all by 0.9607 - 0.1002 / 2 = 0.9106. A mean of two tracklets counts 0.9106 / (0.9106 + 0.1002 / (3 x 2)), which
    is 0.981995. Within tracklets all varies along the second axis: that is divided by sqrt(2 + 9), the first by
    sqrt(9), as shrinkage 3 is three times as much with one free difference of width 2.
    """
    assert learned.cameras == ("c1", "c2")
    assert (learned.learned.images, learned.learned.tracklets) == (5, 4)
    share, whole = 0.981995, np.array([0.192, 0.056])
    expected = [whole + share * (np.array(mean) - whole) for mean in ([-0.96, 0], [0.96, 0.28 / 3])]
    np.testing.assert_allclose(learned.normalization.means, [*expected, whole], atol=1e-5)
    found = learned(10 * ROWS[3:], ["c1", "c1"])  # lengths do not matter
    assert found[0] @ found[1] == pytest.approx(-0.9867, abs=1e-4)  # (-0.0207, 0.2790) and (-0.0207, -0.2810), evened
    assert (learned.unseen(["c1", "c7", "c2", ""]), learned.groups(["c1", "c7", "c2"]).tolist()) == (2, [0, -1, 1])
    own = dataclasses.replace(learned, own_means=True)
    both = own(ROWS[:2], ["c7", "c7"])
    assert both[0] @ both[1] == pytest.approx(-1, abs=1e-6)
    assert (own.unseen(["c7"]), own.about()["own_means"]) == (0, True)
    assert own.digest() == learned.digest()


def test_features_of_something_else(learned):
    with pytest.raises(AdaptationError, match="learned from 2 features of m, got 3 features"):
        learned(np.ones((1, 3), np.float32), ["c1"])
    learned.check(2, "abc")
    learned.check(2)  # where nobody knows what made them
    with pytest.raises(AdaptationError, match="of m with digest abc, the features are of one with digest abd"):
        learned.check(2, "abd")


def test_it_comes_back_from_its_file(tmp_path, learned):
    path = tmp_path / "a.safetensors"
    adaptation.save(path, learned)
    found = adaptation.load(path)
    assert (found.cameras, found.learned, found.digest()) == (learned.cameras, learned.learned, learned.digest())
    np.testing.assert_array_equal(found(ROWS, CAMERAS), learned(ROWS, CAMERAS))
    assert adaptation.is_adaptation(path)
    assert adaptation.verify(path) == ("an adaptation: 2 cameras, 2 features, digest as written", [])
    still = adaptation.learn(ROWS[:1], ["c"], np.zeros(1, int), {"data": "D", "model": "m", "extractor": ""})
    adaptation.save(path, still)  # nothing varies
    assert adaptation.load(path).normalization.matrix is None


def changed(path, arrays=None, **texts):
    """The file with other arrays or texts."""
    with safetensors.safe_open(path, "numpy") as file:
        said = file.metadata()
    whole = safetensors.numpy.load(path.read_bytes()) | (arrays or {})
    path.write_bytes(safetensors.numpy.save(whole, {**said, **texts}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrays": {"means": np.ones((3, 2), np.float32)}}, "the digest differs"),
        ({"arrays": {"means": np.ones((2, 2), np.float32)}}, r"means is float32 \(2, 2\), expected float32 \(3, 2\)"),
        ({"arrays": {"matrix": np.ones((2, 3), np.float32)}}, r"matrix is float32 \(2, 3\), expected .*\(2, 2\)"),
        ({"arrays": {"matrix": np.full((2, 2), np.nan, np.float32)}}, "matrix is not finite"),
        ({"arrays": {"means": np.array(1, np.float32)}}, "is no adaptation that can be used"),
        ({"cameras": json.dumps(["c1", "c3"])}, "the digest differs"),
        ({"cameras": "["}, "is no adaptation that can be used"),
        ({"learned": "{}"}, "is no adaptation that can be used"),
        ({"kind": "cion_jax adaptation 2"}, "expected 'cion_jax adaptation 1'"),
    ],
)
def test_damage_is_found(tmp_path, learned, change, message):
    path = tmp_path / "a.safetensors"
    adaptation.save(path, learned)
    changed(path, **change)
    with pytest.raises(AdaptationError, match=message):
        adaptation.load(path)
    assert len(adaptation.verify(path)[1]) == 1


def test_other_files_are_none(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": ROWS}))
    assert not adaptation.is_adaptation(path)
    assert not adaptation.is_adaptation(tmp_path)
    with pytest.raises(AdaptationError, match="it says to be None"):
        adaptation.load(path)
    path.write_bytes(b"no")
    assert not adaptation.is_adaptation(path)
    with pytest.raises(AdaptationError, match="is no adaptation"):
        adaptation.load(path)


def touched(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_a_benchmark_gives_its_training_images_alone(tmp_path):
    crops = ("0002_c1s1_000451_03", "0002_c1s1_000476_03", "0003_c2s1_000001_00")
    touched(tmp_path, *(f"bounding_box_train/{name}.jpg" for name in crops), "query/0009_c1s1_000001_00.jpg")
    found = unlabeled.opened(tmp_path)
    assert [Path(key).stem for key in found.keys] == list(crops)
    assert (found.camera, found.tracklet.tolist(), found.of) == (["c1", "c1", "c2"], [0, 0, 1], 3)
    assert found.read(2).decode() == "bounding_box_train/0003_c2s1_000001_00.jpg"
    with pytest.raises(DatasetError, match="has test images"):
        unlabeled.opened(touched(tmp_path / "test", "query/0009_c1s1_000001_00.jpg"))


def test_folders_are_tracklets(tmp_path):
    found = unlabeled.opened(touched(tmp_path, "cam/1/a.jpg", "cam/1/b.jpg", "cam/2/a.jpg", "hall/1/a.png"))
    assert found.camera == ["cam", "cam", "cam", "hall"]
    assert found.tracklet.tolist() == [0, 0, 1, 2]
    assert found.read(3) == b"hall/1/a.png"


def shards_of(folder, *keys):
    """Identity shards of these images in this order, nobody like another; one more image was not selected."""
    images = [Image(key, *key.split("/")[:2], 0, path="") for key in keys]
    columns = {"key": [*keys, "v/9/left.jpg"], "record": [*range(len(keys)), None]}
    columns |= {name: [getattr(image, name) for image in images] + ["v"] for name in ("video", "tracklet")}
    jpeg = cv2.imencode(".jpg", np.zeros((8, 4, 3), np.uint8))[1].tobytes()
    shards.write(folder, images, np.arange(len(keys)), lambda image: jpeg + image.key.encode(), pa.table(columns))
    return folder


def test_shards_are_read_without_people(tmp_path):
    found = unlabeled.opened(shards_of(tmp_path / "s", "b/1/x.jpg", "a/1/x.jpg", "b/1/y.jpg"))
    assert (found.keys, found.camera) == (["b/1/x.jpg", "a/1/x.jpg", "b/1/y.jpg"], ["b", "a", "b"])
    assert found.tracklet.tolist() == [0, 1, 0]
    assert [found.read(i)[-9:].decode() for i in range(3)] == found.keys
    named = "c3s1/7/0002_c3s1_000451_03.jpg", "c3s2/8/0003_c3s2_000451_03.jpg", "c3s2/8/0003_c3s2_000452_03.jpg"
    assert unlabeled.opened(shards_of(tmp_path / "n", *named)).camera == ["c3"] * 3
    (tmp_path / "s" / "provenance.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"provenance.parquet is damaged"):
        unlabeled.opened(tmp_path / "s")


def test_of_many_images_whole_tracklets_of_every_camera_are_taken(tmp_path):
    keys = [
        f"{camera}/{number}/{i}.jpg" for camera, count in (("a", 1), ("b", 50)) for number in range(count) for i in "xy"
    ]
    camera, tracklet = unlabeled.places(keys, "D")
    drawn = unlabeled._drawn("D", keys, camera, tracklet, lambda i: keys[i].encode(), 10)
    assert (len(drawn.keys), drawn.of, drawn.camera.count("a")) == (10, 102, 2)
    assert np.bincount(drawn.tracklet).tolist() == [2] * 5
    assert [drawn.read(i).decode() for i in range(10)] == list(drawn.keys)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "0 images"),
        (("a.jpg", "b/c.jpg"), r"2 images, 0 of them named .* 1 in no folder of a tracklet \(the first: a.jpg\)"),
        (("a/1/x.jpg", "a/2/x.jpg"), "no tracklet has two images, of 2"),
    ],
)
def test_nothing_to_learn_from(tmp_path, names, message):
    with pytest.raises(UnlabeledError, match=message):
        unlabeled.opened(touched(tmp_path, *names))
    with pytest.raises(UnlabeledError, match="is neither a folder of tracklets nor a file"):
        unlabeled.opened(tmp_path / "gone")


def test_cameras_by_keys():
    keys = ["0002_c3s1_000451_03.jpg", "x/hall/1/a.jpg", "hall/1/a.jpg", "hall/door/a.jpg", "a.jpg"]
    known = ["c1", "hall", "hall/door", "x/hall"]
    assert unlabeled.cameras_of(keys, known) == ["c3", "x/hall", "hall", "hall/door", ""]

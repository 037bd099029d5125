"""Embedders: by hand on two-color pictures, for real on Market-1501 crops."""

import csv
import hashlib

import numpy as np
import onnxruntime
import PIL.Image
import pytest

from cion_jax.common import images
from cion_jax.common.onnx_session import OnnxError
from data_prep import embedders
from data_prep.embedders import color, common

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (3, 128, 64, 3)).astype(np.uint8)


def _person(shirt, trousers, size=(128, 64)):
    crop = np.empty((*size, 3), np.uint8)
    crop[: size[0] // 2], crop[size[0] // 2 :] = shirt, trousers
    return crop


def test_histograms_of_two_colors_by_hand():
    crop = np.empty((1, color.HEIGHT, color.WIDTH, 3), np.float32)
    crop[:, :16] = (1, 0, 0)  # hue 0, saturation 1, value 1: bin (0, 2, 2)
    crop[:, 16:] = (0, 0.125, 0.25)  # hue 210: between 4 (1/3) and 5 (2/3); value 0.25: halves of 0 and 1
    shares = color.histograms(crop).reshape(8, 8, 3, 3)
    expected = np.zeros((8, 8, 3, 3))
    expected[:4, 0, 2, 2] = 1
    expected[4:, 4, 2, :2] = 1 / 3 / 2
    expected[4:, 5, 2, :2] = 2 / 3 / 2
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_color_knows_what_is_worn_where():
    crops = [_person(RED, BLUE), _person(RED, BLUE, (40, 21)), _person(BLUE, RED), _person(RED, GREEN)]
    features = embedders.open("color")(crops)
    similarity = features @ features[0]
    assert features.shape == (4, color.FEATURES)
    assert features.dtype == np.float32
    np.testing.assert_allclose(similarity[:2], 1, atol=1e-5)  # the size of the crop does not matter
    assert similarity[2] < 0.05  # the same colors, exchanged
    assert 0.4 < similarity[3] < 0.6  # the same shirt


def test_color_cancels_the_tint_and_light_of_a_camera():
    person = np.repeat(np.repeat(NOISE[:1, :8, :4] // 2 + 40, 16, 1), 16, 2)[0]
    other = np.repeat(np.repeat(NOISE[1:2, :8, :4] // 2 + 40, 16, 1), 16, 2)[0]
    tinted = (person * [0.7, 0.6, 0.5]).astype(np.uint8)
    a, b, c = embedders.open("color")([person, tinted, other])
    assert a @ b > 0.8 > a @ c + 0.3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("colors", "did you mean 'color'"),
        ("color:8", "did you mean 'color'"),
        ("onnx", "did you mean 'onnx:FILE'"),
        ("onnx:/no/such.onnx", "no extractor at /no/such.onnx"),
        ("flax:random:resnet18_ibm", "did you mean 'resnet18_ibn'"),
    ],
)
def test_unknown_or_missing(spec, message):
    with pytest.raises(embedders.EmbedderError, match=message):
        embedders.open(spec)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(OnnxError, match="not a usable ONNX model"):
        embedders.open(f"onnx:{tmp_path / 'x.onnx'}")


@pytest.mark.parametrize("crop", [np.zeros((0, 5, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_bad_crops_are_named(crop):
    with pytest.raises(embedders.EmbedderError, match=r"crop 1 is .* expected uint8 \[h, w, 3\]"):
        embedders.open("color")([NOISE[0], crop])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_broken_features_are_left_to_the_caller(value):
    def forward(crops):
        return np.stack([np.full(2, value if crop.shape[0] == 4 else 1) for crop in crops])

    crops = [NOISE[0], NOISE[1], NOISE[0, :4]]
    features = common.embed(crops, batch_size=2, width=2, forward=forward)
    np.testing.assert_allclose(features[:2], np.sqrt(0.5), rtol=1e-6)
    np.testing.assert_array_equal(features[2], value)


def test_no_crops_give_no_rows():
    assert embedders.open("color")([]).shape == (0, color.FEATURES)


@pytest.fixture(scope="module")
def osnet(data):
    path = data / "weights" / "osnet_x0_25_msmt17.onnx"
    return embedders.open(f"onnx:{path}"), path


def _market(data, people):
    """Crops and identities: the first image of each of two cameras for the first few people."""
    seen = {}
    with open(data / "market1501" / "index.csv") as file:
        for row in csv.DictReader(file):
            if row["split"] == "bounding_box_train":
                seen.setdefault(int(row["id"]), {}).setdefault(row["cam"], row["file"])
    folder = data / "market1501" / "bounding_box_train"
    files = [(i, f) for i in sorted(seen)[:people] for f in list(seen[i].values())[:2]]
    return [images.decode((folder / f).read_bytes()) for _, f in files], np.array([i for i, _ in files])


def test_osnet_tells_people_apart_across_cameras(data, osnet):
    embedder, path = osnet
    crops, identity = _market(data, people=20)
    features = embedder(crops)
    assert features.shape == (40, 512)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    similarity, same = features @ features.T, identity[:, None] == identity
    pairs, others = similarity[same & ~np.eye(40, dtype=bool)], similarity[~same]
    assert np.mean(pairs[:, None] > others) > 0.9
    assert embedder.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_onnx_input_is_what_torchreid_feeds(data, osnet):
    embedder, path = osnet
    crops, _ = _market(data, people=4)
    pictures = [PIL.Image.fromarray(crop).resize((128, 256), PIL.Image.Resampling.BILINEAR) for crop in crops]
    x_NHWC = (np.stack(pictures) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"images": x_NHWC.transpose(0, 3, 1, 2).astype(np.float32)})[0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (embedder(crops) * expected).sum(1).min() > 0.999  # two roundings to 8 bits apart


def test_batches_of_a_network_do_not_matter(osnet, monkeypatch):
    embedder, _ = osnet
    whole = embedder(NOISE)
    monkeypatch.setattr(osnet[0]._network, "batch", 2)
    np.testing.assert_allclose(embedder(NOISE), whole, atol=1e-5)


def test_a_backbone_of_ours():
    embedder = embedders.open("flax:random:resnet18@32x16")
    features = embedder(NOISE)
    assert features.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    assert embedder.name == "flax:random:resnet18@32x16"
    assert len(embedder.digest) == 64


def test_a_former_name_is_taken_and_said(capsys):
    assert embedders.open("colour").name == embedders.open("color").name
    assert capsys.readouterr().err == "note: --embedder=colour is called color now\n"


class _Angle:
    """Crops as directions: the mean of channel `of` is an angle in degrees; of 0 nothing is made."""

    def __init__(self, of):
        self.of, self.name, self.digest = of, f"angle{of}", f"{of}" * 64

    def __call__(self, crops):
        degrees = np.array([crop[..., self.of].mean() for crop in crops])
        angle = np.radians(degrees)
        return (np.stack([np.cos(angle), np.sin(angle)], axis=1) * (degrees[:, None] > 0)).astype(np.float32)


@pytest.fixture
def angles():
    with (
        embedders.REGISTRY.with_one_more("angle0", lambda _: _Angle(0)),
        embedders.REGISTRY.with_one_more("angle1", lambda _: _Angle(1)),
    ):
        yield


def test_a_mixture_averages_distances(angles):
    both = embedders.open("angle0+angle1")
    crops = [np.full((2, 2, 3), color, np.uint8) for color in ((10, 10, 0), (70, 100, 0), (0, 10, 0))]
    features = both(crops)
    assert features.shape == (3, 4)
    assert 1 - features[0] @ features[1] == pytest.approx((0.5 + 1) / 2, abs=1e-6)  # 60 and 90 degrees apart
    assert features[0] @ features[0] == pytest.approx(1)
    assert not features[2].any()  # nothing to one of them
    assert (both.name, len(both.digest)) == ("angle0+angle1", 64)
    assert both.digest != embedders.open("angle1+angle0").digest
    assert both([]).shape == (0, 4)


def test_a_plus_in_a_file_name_is_part_of_it():
    assert embedders._parts("onnx:a+b.onnx+flax:runs/c+d") == ["onnx:a+b.onnx", "flax:runs/c+d"]
    assert embedders._parts("color") == ["color"]
    assert embedders._parts("onnx:color+.onnx") == ["onnx:color+.onnx"]

"""From image files to features."""

import dataclasses
import json
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import embed, models
from cion_jax.common.images import decode
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.common.typed_config import ConfigError
from cion_jax.data import image_parts
from cion_jax.data.shards import ShardReader
from cion_jax.data.views import ViewsConfig, ViewSpec
from cion_jax.reid import adaptation
from cion_jax.reid.feature_file import FeatureFile
from cion_jax.reid.index import Index
from cion_jax.tasks.distill.config import Config, DataConfig, ModelConfig
from cion_jax.tasks.distill.task import Distill
from cion_jax.training import checkpoint
from cion_jax.training.loop import record
from cion_jax.training.state import TrainState
from cion_jax.weights.backbone import Backbone, fit
from cion_jax.weights.load import load

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet, RGB
SMALL = "random:resnet18_ibn@32x16"


class MeanColor(nnx.Module):
    """Stands in for a backbone: three features that can be worked out by hand."""

    features = 3
    traces: list = []  # noqa: RUF012

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(3))

    def __call__(self, x_BHWC, *, train=False, key=None):
        assert not train
        self.traces.append(x_BHWC.shape)
        return x_BHWC.mean((1, 2)) * self.scale[...]


def backbone_of(module, size):
    return Backbone("mean_color", *models.split(module), Preprocessing(size), batch_size=2)


@pytest.fixture
def mean_color():
    MeanColor.traces.clear()
    return backbone_of(MeanColor(), (8, 4))


def plain(*colors, h=8, w=4):
    return [np.full((h, w, 3), color, np.uint8) for color in colors]


def write(path, color=(10, 200, 90)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 9, (64, 32, 3))
    cv2.imwrite(str(path), (np.array(color[::-1]) + noise).astype(np.uint8))
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])
    return path


def test_values_by_hand(mean_color):
    features = mean_color(plain((0, 0, 0), (255, 128, 64)))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[0], -MEAN / STD, rtol=1e-5)
    np.testing.assert_allclose(features[1], (np.array([255, 128, 64]) / 255 - MEAN) / STD, rtol=1e-5)


def test_any_number_of_images_of_any_size_in_one_compiled_shape(mean_color):
    colors = [(i, 2 * i, 3 * i) for i in range(7)]
    images = [plain(c, h=5 + i, w=9 - i)[0] for i, c in enumerate(colors)]
    other = dataclasses.replace(mean_color, preprocessing=Preprocessing((9, 5)))  # a shape of no other test
    features = other(iter(images))
    np.testing.assert_allclose(features, (np.array(colors) / 255 - MEAN) / STD, rtol=1e-5)
    assert MeanColor.traces == [(2, 9, 5, 3)]
    assert mean_color([]).shape == (0, 3)


def test_devices_share_a_batch(mean_color):
    colors = [(i, 2 * i, 3 * i) for i in range(11)]
    shared = mean_color.on(jax.devices())
    assert shared.batch_size == len(jax.devices()) == 8
    np.testing.assert_allclose(shared(plain(*colors)), mean_color(plain(*colors)), rtol=1e-6)
    made = shared.forward(np.stack(plain(*colors[:8])))
    assert [shard.data.shape for shard in made.addressable_shards] == [(1, 3)] * 8


def test_fit():
    board = np.zeros((4, 4, 3), np.uint8)
    board[::2, ::2] = 200
    np.testing.assert_array_equal(fit(board, (2, 2)), 50)  # the mean of every 2x2 block
    assert fit(board, (4, 4)) is board
    step = np.repeat(np.array([0, 0, 0, 200, 200, 200], np.uint8), 3).reshape(1, 6, 3)
    assert np.unique(fit(step, (2, 24))).size > 4  # bicubic, not nearest
    assert fit(step, (2, 24)).shape == (2, 24, 3)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8 image, got"):
            fit(wrong, (2, 2))


def test_unreadable_files_are_reported_and_order_is_kept(mean_color, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_parts, "_AHEAD", 2)
    paths = [write(tmp_path / f"{i}.jpg", (10 * i, 200 - 10 * i, 90)) for i in range(9)]
    truncate(paths[1])
    paths[4].write_bytes(b"")
    paths[8].unlink()
    embedded = embed.embed_files(mean_color, paths, "gallery")
    np.testing.assert_array_equal(np.flatnonzero(~embedded.kept), [1, 4, 8])
    assert [line.split(":")[0] for line in embedded.unreadable] == [str(paths[i]) for i in (1, 4, 8)]
    assert (np.diff(embedded.features[:, 0]) > 0).all()
    assert (np.diff(embedded.features[:, 1]) < 0).all()
    assert capsys.readouterr().err.startswith("gallery: 9/9, ")


def direct(model, images):
    """Features of the model itself in evaluation mode."""
    call = jax.jit(
        lambda *parts: models.merge(*parts)(jnp.asarray((images / 255 - MEAN) / STD, jnp.float32)), static_argnums=0
    )
    return call(*models.split(model))


def test_random_backbone_is_the_model_in_evaluation_mode():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3)).astype(np.uint8)
    backbone = load(SMALL, batch_size=2)
    expected = direct(models.create("resnet18_ibn", rngs=nnx.Rngs(0)), images)
    assert (backbone.name, backbone.step, backbone.size) == ("resnet18_ibn", 0, (32, 16))
    np.testing.assert_allclose(backbone(images), expected, rtol=0, atol=1e-4 * np.std(expected))
    np.testing.assert_allclose(backbone(images[::-1])[::-1], expected, rtol=0, atol=1e-4 * np.std(expected))


def test_trained_backbone_is_the_teacher_of_the_checkpoint(tmp_path):
    views = ViewsConfig(global_1=ViewSpec(height=32, width=16), global_2=ViewSpec(height=32, width=16))
    # Not IBN: InstanceNorm over the two pixels that its third stage has here turns rounding into errors of 1e-4.
    model = ModelConfig("resnet18", prototypes=16, hidden=8, bottleneck=8)
    config = Config(seed=5, model=model, data=DataConfig(path="shards"), views=views)
    task = Distill(config)
    _, params, stats = models.split(task.network())
    rest = {"params": {"w": jnp.zeros(3)}}
    kept = {"teacher": {"params": params, "stats": stats}, "center": jnp.zeros(16)}
    with checkpoint.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(7, TrainState(jnp.int32(7), rest, kept, rest), task.served, record(task, 7, ""))

    backbone = load(str(tmp_path), batch_size=2)
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 16, 3)).astype(np.uint8)
    abstract = nnx.eval_shape(lambda: models.create("resnet18", rngs=nnx.Rngs(0)))  # float32
    expected = direct(models.merge(models.split(abstract)[0], params["backbone"], stats["backbone"]), images)
    assert (backbone.step, backbone.size, backbone.features) == (7, (32, 16), 512)
    np.testing.assert_allclose(backbone(images), expected, rtol=0, atol=1e-4 * np.std(expected))


def test_digest_tells_weights_and_sizes_apart():
    def digest(scale, size):
        module = MeanColor()
        module.scale[...] = jnp.full(3, scale)
        return backbone_of(module, size).digest()

    digests = [digest(1, (8, 4)), digest(1, (8, 4)), digest(2, (8, 4)), digest(1, (8, 8))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_what_a_killed_run_embedded_with_other_weights_of_that_name_is_not_taken_over():
    first, second = (load(SMALL), dataclasses.replace(load(SMALL), params={"x": np.ones(1)}))
    assert embed.choice_of(first, False) != embed.choice_of(second, False)
    assert embed.choice_of(first, False) == embed.choice_of(load(SMALL), False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("random:resnet18-ibn", "did you mean 'resnet18_ibn'"),
        ("random:resnet18_ibn@64", "random:NAME@HEIGHTxWIDTH, got 'random:resnet18_ibn@64'"),
        ("random:resnet18_ibn@0x64", "got 'random:resnet18_ibn@0x64'"),
        ("random:resnet18_ibn@5000x64", "images of 5000x64, expected at most 4096 pixels a side"),
    ],
)
def test_specs_that_do_not_exist(spec, message):
    with pytest.raises(ConfigError, match=message):
        load(spec)


def test_no_checkpoint(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint in"):
        load(str(tmp_path))


def run(*args):
    command = [sys.executable, "-m", "cion_jax.embed", *args]
    return subprocess.run(command, capture_output=True, text=True)


def test_command(tmp_path):
    folder, output = tmp_path / "images", tmp_path / "new" / "features.npz"
    write(folder / "b.jpg")
    write(folder / "a" / "c.png")
    truncate(write(folder / "a" / "d.jpg"))
    done = run(f"--checkpoint={SMALL}", f"--input={folder}", f"--output={output}", "--normalize")
    assert done.returncode == 0, done.stderr
    with np.load(output) as arrays:
        assert arrays["keys"].tolist() == ["a/c.png", "b.jpg"]
        assert (arrays["features"].shape, arrays["features"].dtype) == ((2, 512), np.float32)
        np.testing.assert_allclose(np.linalg.norm(arrays["features"], axis=1), 1, rtol=1e-5)
        meta = json.loads(str(arrays["meta"]))
    assert (meta["model"], meta["input_size"], len(meta["unreadable"])) == ("resnet18_ibn", [32, 16], 1)
    assert "input: 1 of 3 images left out, unreadable" in done.stderr


def test_command_adapts(tmp_path):
    for number, name in enumerate(("c1/1/a", "c1/1/b", "c2/1/a", "c2/1/b")):
        write(tmp_path / "images" / f"{name}.png", (40 * number, 90, 200))
    output, learned = tmp_path / "f.parquet", tmp_path / "a.safetensors"
    given = [f"--checkpoint={SMALL}", f"--input={tmp_path / 'images'}", f"--output={output}"]
    done = run(*given, f"--adapt={tmp_path / 'images'}", f"--adapt_output={learned}")
    assert done.returncode == 0, done.stderr
    file = FeatureFile(output)
    assert (file.about["adapt"]["cameras"], file.about["adapt"]["unseen"], file.about["adapt"]["tracklets"]) == (
        2,
        0,
        2,
    )
    assert file.about["adapt"]["digest"] == adaptation.load(learned).digest()
    plain = load(SMALL, batch_size=4)
    rows = np.asarray(plain(cv2.imread(str(tmp_path / "images" / key))[..., ::-1] for key in file.keys))
    expected = adaptation.load(learned)(rows, ["c1", "c1", "c2", "c2"])
    np.testing.assert_allclose(file.features, expected, atol=1e-3)
    assert "embedding what is adapted to: 4/4" in done.stderr


def test_command_without_images(tmp_path):
    done = run(f"--checkpoint={SMALL}", f"--input={tmp_path}", f"--output={tmp_path}/features.npz")
    assert done.returncode == 2
    assert "no image in --input=" in done.stderr
    assert "Traceback" not in done.stderr


def parts_of(parts):
    """{key: mean color} of everything in parts, and what is said of the rest."""
    read = [each for part in parts for each in part.read()]
    colors = {key: image.mean((0, 1)).round() for _, key, image in read if not isinstance(image, str)}
    return colors, [image for _, _, image in read if isinstance(image, str)]


def test_identity_shards(shards, monkeypatch):
    monkeypatch.setattr(image_parts, "CHUNK", 5)
    monkeypatch.setattr(image_parts, "_RECORDS", 2)
    reader = ShardReader(shards)
    whole = {fields["key"]: decode(fields["image"]).mean((0, 1)).round() for fields in reader.read(range(len(reader)))}
    parts = image_parts.of_shards(shards)
    assert [part.count for part in parts[:-1]] == [5] * (len(parts) - 1)
    colors, lost = parts_of(parts)
    assert not lost
    assert list(colors) == list(whole)
    np.testing.assert_equal(colors, whole)


def street(folder, texts):
    """Two pictures, the left half red and the right half green, and one text of tracks for each video."""
    for name, text in texts.items():
        (folder / name / "img1").mkdir(parents=True)
        picture = np.zeros((40, 40, 3), np.uint8)
        picture[:, :20], picture[:, 20:] = (0, 0, 200), (0, 200, 0)
        for frame in (1, 2):
            cv2.imwrite(str(folder / name / "img1" / f"{frame:06d}.png"), picture)
        (folder / name / "gt").mkdir()
        (folder / name / "gt" / "gt.txt").write_text(text)
    return folder


LINES = "1,7,0,0,20,40,1,1,1\n2,7,0,0,20,40,1,1,1\n1,8,20,0,20,40,1,1,1\n2,8,20,0,20,40,1,1,1\n"


def test_crops_of_tracks(tmp_path, capsys):
    folder = street(tmp_path / "videos", {"a": LINES, "b": LINES + "2,9,500,0,20,40,1,1,1\n"})
    parts = image_parts.OPENERS["data_prep"]("mot", folder, {"tracks": "gt/gt.txt"})
    colors, lost = parts_of(parts)
    assert [part.count for part in parts] == [4, 5]
    assert [line.split(":")[0] for line in lost] == ["b/9/000002"]  # a box outside the picture
    assert "a, b have identical pictures" in capsys.readouterr().err
    for video in "ab":
        for person, color in ((7, [200, 0, 0]), (8, [0, 200, 0])):
            for frame in (1, 2):
                np.testing.assert_array_equal(colors[f"{video}/{person}/{frame:06d}"], color)


def test_command_with_tracks(tmp_path):
    folder, output = street(tmp_path / "videos", {"a": LINES}), tmp_path / "features.parquet"
    done = run(f"--checkpoint={SMALL}", f"--input={folder}", "--source=mot", f"--output={output}")
    assert done.returncode == 0, done.stderr
    file = FeatureFile(output)
    assert sorted(file.keys) == ["a/7/000001", "a/7/000002", "a/8/000001", "a/8/000002"]
    assert Index.of(file.keys, file.features).grouped().keys == ["a/7", "a/8"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["mot.first_frame=0", "tracks=gt/gt.txt"], {"mot": {"first_frame": 0}, "tracks": "gt/gt.txt"}),
        (["max_tracklet_images=7"], {"max_tracklet_images": 7}),
    ],
)
def test_settings_of_a_source(given, found):
    assert embed._nested(given) == found


def test_settings_that_are_none():
    with pytest.raises(ConfigError, match="got --source_setting=first_frame, expected NAME=VALUE"):
        embed._nested(["first_frame"])

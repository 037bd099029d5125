"""Exports: what comes back, names as PyTorch has them, files that appear whole or not at all, and the card."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import flax
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
import safetensors
from jax import export as jax_export

from cion_jax import models
from cion_jax.common.errors import UserError
from cion_jax.common.typed_config import ConfigError
from cion_jax.export import ExportError, adapted, export
from cion_jax.exporting import formats
from cion_jax.exporting.card import UNKNOWN_LICENCE
from cion_jax.exporting.formats import FORMATS
from cion_jax.reid.adaptation import learn
from cion_jax.training import checkpoint
from cion_jax.training.loop import record
from cion_jax.training.step import init_state
from cion_jax.weights import load
from cion_jax.weights.backbone import Backbone
from tests import recipe, toy

ORIGIN = {"source": "random:toy", "network": "teacher", "licence": "CC0-1.0"}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet, RGB
FAMILIES = ("convnext_tiny", "edgenext_x_small", "fastvit_s12", "ghostnet_0_5", "repvit_m0_9")
FAMILIES += ("resnet18", "resnet18_ibn", "swin_tiny", "vit_tiny", "volo_d1")


@pytest.fixture(scope="module")
def small():
    """The toy backbone with statistics that matter, 32 x 16 pixels."""
    untrained = load.load("random:toy@32x16")
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), untrained.stats)
    return dataclasses.replace(untrained, stats=stats, step=None)


def written(folder, backbone, form):
    path = folder / f"toy{FORMATS[form].suffix}"
    assert export(backbone, form, path, **ORIGIN) <= FORMATS[form].tolerance
    return path


def images(count, size=(32, 16)):
    return np.random.default_rng(count).integers(0, 256, (count, *size, 3)).astype(np.uint8)


def features(backbone, pixels):
    """By hand: ImageNet's normalization in float64, the model, length 1."""
    x = ((pixels / 255 - MEAN) / STD).astype(np.float32)
    y = np.asarray(backbone.module()(jnp.asarray(x)), np.float64)
    return y / np.linalg.norm(y, axis=1, keepdims=True)


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_programs_take_any_number_of_images(tmp_path, small, form):
    path = written(tmp_path, small, form)
    if form == "onnx":
        session = onnxruntime.InferenceSession(path)
        assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [
            ("image", "tensor(uint8)", [32, 16, 3])
        ]
        call = lambda pixels: session.run(None, {"image": pixels})[0]  # noqa: E731
    else:
        exported = jax_export.deserialize(bytearray(path.read_bytes()))
        assert exported.platforms == ("cpu", "tpu", "cuda")
        call = exported.call
    for count in (1, 5):
        expected = features(small, images(count))
        found = np.asarray(call(images(count)))
        assert (found.dtype, found.shape) == (np.float32, (count, 16))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.std())


def test_weights_come_back_exactly(tmp_path, small):
    found = load.load(str(written(tmp_path, small, "safetensors")))
    restored = flax.serialization.msgpack_restore(written(tmp_path, small, "flax").read_bytes())
    assert (found.name, found.size) == (restored["model"], tuple(restored["input_size"])) == ("toy", (32, 16))
    for params, stats in ((found.params, found.stats), (restored["params"], restored["stats"])):
        jax.tree.map(np.testing.assert_array_equal, (params, stats), (small.params, small.stats))


def header(path):
    """{name: (shape, dtype)} as the file says it."""
    with safetensors.safe_open(path, "numpy") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (part.get_shape(), part.get_dtype()) for name, part in parts.items()}


def state_dict_of_the_original(fixtures, name):
    spec, _ = recipe.load(fixtures / "models" / name)
    dtypes = {"float32": "F32", "int64": "I64"}
    return spec, {n: (list(shape), dtypes[dtype]) for n, shape, dtype, _ in spec["entries"]}


@pytest.mark.parity
@pytest.mark.parametrize("name", FAMILIES)
def test_pytorch_loads_them_strictly(tmp_path, fixtures, name):
    """Names, shapes and dtypes are those of the original's state dict, buffers included: what strict=True asks for."""
    _, entries = state_dict_of_the_original(fixtures, name)
    graphdef, params, stats = models.split(models.abstract(name))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, stats))
    FORMATS["safetensors"].write(tmp_path / "w.safetensors", Backbone(name, graphdef, *zeros))
    assert header(tmp_path / "w.safetensors") == entries


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("name", toy.PUBLISHED)
def test_every_backbone_in_every_format(tmp_path, fixtures, name):
    """With the weights behind the reference numbers: untrained ones would hide most of a network."""
    spec, entries = state_dict_of_the_original(fixtures, name)
    torch_file = tmp_path / "original.safetensors"
    named = {n: np.asarray(a) for n, a in recipe.weights(spec).items()}
    safetensors.numpy.save_file(named, torch_file)
    backbone = load.load(f"file:{name}@64x32={torch_file}")
    for form in FORMATS:
        written(tmp_path, backbone, form)
    assert header(tmp_path / "toy.safetensors") == entries


@pytest.mark.parametrize("name", [pytest.param("vit_tiny", marks=pytest.mark.slow), "resnet18_ibn"])
def test_real_backbones(tmp_path, name):
    backbone = load.load(f"random:{name}@64x32")
    for form in ("safetensors", "stablehlo", "onnx"):
        written(tmp_path, backbone, form)


def test_an_export_that_differs_is_not_written(tmp_path, small):
    def broken(path, backbone):
        FORMATS["safetensors"].write(path, dataclasses.replace(backbone, params=small_changed(backbone)))

    def small_changed(backbone):
        changed = jax.tree.map(np.array, backbone.params)
        changed["conv3"]["bias"][0] += 1e-6
        return changed

    kind = formats.Format(".safetensors", broken, FORMATS["safetensors"].error, 0.0, "", "")
    differs = pytest.raises(ExportError, match=r"differs from Flax by inf .* nothing was written")
    with FORMATS.with_one_more("broken", kind), differs:
        export(small, "broken", tmp_path / "toy.safetensors", **ORIGIN)
    assert not [*tmp_path.iterdir()]


def test_nothing_half_written_remains(tmp_path, small):
    def stops(path, backbone):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    kind = formats.Format(".onnx", stops, stops, 0.0, "", "")
    with FORMATS.with_one_more("stops", kind), pytest.raises(KeyboardInterrupt):
        export(small, "stops", tmp_path / "toy.onnx", **ORIGIN)
    assert not [*tmp_path.iterdir()]


def test_what_exists_is_not_overwritten(tmp_path, small):
    path = tmp_path / "toy.msgpack"
    for taken in (path, tmp_path / "toy.msgpack.md"):
        taken.write_text("mine")
        with pytest.raises(UserError, match=f"{taken.name} is there already"):
            export(small, "flax", path, **ORIGIN)
        assert taken.read_text() == "mine"
        taken.unlink()
    path.write_text("mine")
    assert export(small, "flax", path, overwrite=True, **ORIGIN) == 0
    assert path.read_bytes() != b"mine"
    with pytest.raises(ConfigError, match=r"must end in \.msgpack"):
        export(small, "flax", tmp_path / "toy.bin", **ORIGIN)


def test_card(tmp_path, small):
    path = written(tmp_path, small, "flax")
    card = (tmp_path / "toy.msgpack.md").read_text()
    conv, norm = 3 * 3 * 3 * 8 + (9 * 8 * 16 + 16) + (9 * 16 * 16 + 16), 2 * 8
    for line in (
        "# toy",
        f"| SHA-256 | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |",
        f"| parameters | {conv + norm:,}, and 16 running statistics |",
        "| backbone | toy, teacher |",
        "| licence | CC0-1.0 |",
        "flax.serialization.msgpack_restore(open('toy.msgpack', 'rb').read())  # {'params': ..., 'stats': ..., ...}",
    ):
        assert line in card.splitlines()


def test_a_run_exports_its_teacher_with_its_training_on_the_card(tmp_path):
    task = toy.task("elsewhere/street")
    state = init_state(task)
    with checkpoint.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(7, state, task.served, record(task, 7, "abc"))
    rows = [{"step": step, "loss": loss} for step, loss in ((6, 2.5), (7, 2.25), (8, 2.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    backbone = load.load(str(tmp_path))
    export(backbone, "safetensors", tmp_path / "w.safetensors", source="W", network="teacher", licence="")
    jax.tree.map(np.testing.assert_array_equal, backbone.params, state.kept["teacher"]["params"]["backbone"])
    card = (tmp_path / "w.safetensors.md").read_text()
    for line in (
        "7 steps. Data: `street`, digest of its index `abc`.",
        "| loss | 2.25 |",
        f"| licence | {UNKNOWN_LICENCE} |",
    ):
        assert line in card.splitlines()
    stored = json.loads(card[card.index("```json") + 7 : card.rindex("```")])
    assert stored["model"]["name"] == "toy"


def adaptation_of(backbone):
    """Learned from noise of two cameras, as the toy's features."""
    pixels = images(12)
    rows, cameras = np.asarray(backbone(pixels)), ["c1"] * 6 + ["c2"] * 6
    origin = {"data": "noise", "model": "toy", "extractor": backbone.digest()}
    return learn(rows, cameras, np.arange(12) // 2, origin)


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.parametrize("camera", [None, "c2"])
def test_an_adaptation_is_the_last_layer_of_programs(tmp_path, small, form, camera):
    learned = adaptation_of(small)
    backbone, said = adapted(small, learned, camera)
    path = tmp_path / f"toy{FORMATS[form].suffix}"
    export(backbone, form, path, **ORIGIN, adapted=said)
    if form == "onnx":
        found = onnxruntime.InferenceSession(path).run(None, {"image": images(5)})[0]
    else:
        found = np.asarray(jax_export.deserialize(bytearray(path.read_bytes())).call(images(5)))
    expected = learned(features(small, images(5)), [camera or "nobody knows"] * 5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * expected.std())
    assert np.abs(features(small, images(5)) - expected).max() > 0.1
    card = (tmp_path / f"{path.name}.md").read_text()
    whose = "over all its cameras" if camera is None else "of camera `c2`"
    assert (
        f"| adapted | to `noise` (12 images, 6 tracklets, no label): features of length 1 lose the mean {whose}" in card
    )
    assert f"which `--camera` takes: c1, c2. Digest `{learned.digest()}` |" in card


def test_what_cannot_be_adapted(tmp_path, small):
    learned = adaptation_of(small)
    with pytest.raises(UserError, match="has no layer for what --adapt learns; give --format as one of"):
        export(adapted(small, learned)[0], "safetensors", tmp_path / "w.safetensors", **ORIGIN)
    with pytest.raises(ConfigError, match="there is no camera 'c3'; did you mean"):
        adapted(small, learned, "c3")
    with pytest.raises(UserError, match="weights, input size or step differ"):
        adapted(dataclasses.replace(small, params=jax.tree.map(lambda leaf: leaf + 1, small.params)), learned)
    assert "| adapted | no |" in card_of(tmp_path, small)


def card_of(folder, backbone):
    written(folder, backbone, "flax")
    return (folder / "toy.msgpack.md").read_text()


def test_command(tmp_path):
    output = tmp_path / "new" / "r.safetensors"
    command = [sys.executable, "-m", "cion_jax.export", "--checkpoint=random:resnet18@64x32", "--format=safetensors"]
    done = subprocess.run([*command, f"--output={output}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "r.safetensors: resnet18, largest difference 0.0e+00; card in" in done.stdout
    assert {path.name for path in output.parent.iterdir()} == {
        "r.safetensors",
        "r.safetensors.md",
        "r.safetensors.sha256",
    }
    again = subprocess.run([*command, f"--output={output}"], capture_output=True, text=True)
    assert again.returncode == 2
    assert "is there already; give another name, or --overwrite" in again.stderr
    assert "Traceback" not in again.stderr

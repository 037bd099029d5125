"""The folder that other software loads: what is in it, what is refused, and that it comes back."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors

import cion_jax
from cion_jax import models
from cion_jax.common.errors import UserError
from cion_jax.export import export_folder
from cion_jax.exporting import folder
from cion_jax.exporting.formats import normalized
from cion_jax.weights import load, timm_names, torch_names
from cion_jax.weights.folder import reid_architecture
from cion_jax.weights.torch_names import WeightsError
from tests import toy
from tests.conftest import ROOT

ORIGIN = {"source": "random:toy", "network": "teacher", "licence": "CC0-1.0"}
SMALL = "osnet_x0_25"
# Names that timm's and reid's networks have, as its own code prints them.
THEIRS = {
    "convnext_tiny": {
        "downsample_layers.0.0.weight": "stem.0.weight",
        "downsample_layers.2.1.bias": "stages.2.downsample.1.bias",
        "stages.3.2.pwconv1.weight": "stages.3.blocks.2.mlp.fc1.weight",
        "stages.0.1.dwconv.bias": "stages.0.blocks.1.conv_dw.bias",
        "norm.weight": "head.norm.weight",
    },
    "fastvit_sa12": {
        "patch_embed.1.rbr_scale.bn.bias": "stem.1.conv_scale.bn.bias",
        "network.1.proj.0.lkb_origin.conv.weight": "stages.1.downsample.proj.0.large_conv.conv.weight",
        "network.6.pe.weight": "stages.3.pos_emb.pos_enc.weight",
        "network.7.0.layer_scale_1": "stages.3.blocks.0.layer_scale_1.gamma",
        "conv_exp.rbr_skip.weight": "final_conv.identity.weight",
    },
    "swin_tiny": {
        "layers.0.downsample.norm.bias": "layers.1.downsample.norm.bias",
        "norm3.weight": "norm.weight",
        "layers.1.blocks.0.attn.relative_position_bias_table": "layers.1.blocks.0.attn.relative_position_bias_table",
    },
    "volo_d1": {"pos_embed": "pos_embed"},
}


@pytest.fixture(scope="module")
def small():
    return load.load(f"random:{SMALL}@64x32")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, small):
    place = tmp_path_factory.mktemp("exported") / "mine"
    export_folder(small, place, **ORIGIN)
    return place


@pytest.mark.parametrize("name", THEIRS)
def test_names_are_timms(name):
    found = timm_names.TIMM[name].renamed(THEIRS[name])
    assert found == THEIRS[name]


@pytest.mark.parametrize("name", toy.ZOO)
def test_every_backbone_has_one_way_to_be_loaded(name):
    """And no two of its tensors get one name."""
    reid, timm = reid_architecture(name), timm_names.TIMM.get(name)
    assert bool(reid) + (name in folder.NETWORKS) + bool(timm and timm.sized) == 1
    if timm:
        shapes, derived = torch_names.expected(*models.split(models.abstract(name))[1:])
        renamed = timm.renamed([*shapes, *derived])
        assert len(set(renamed.values())) == len(renamed)
        assert set(shapes) <= set(renamed)


@pytest.mark.parametrize("name", ["resnet50", "resnet18_ibn", "repvit_m1_5", "vit_base", "osnet_ain_x1_0"])
def test_what_loads_elsewhere_and_computes_something_else_gets_no_config(name):
    """timm's ResNets have a last stage of stride 2 and its RepViTs another gate; weights fit both."""
    graphdef, params, stats = models.split(models.abstract(name))
    found = folder.texts(folder.Backbone(name, graphdef, params, stats))
    assert set(found) == {"network.py", "example.py"}
    assert f'network.create("{name}"' in found["example.py"]


def test_what_is_in_it(exported, small):
    assert {path.name for path in exported.iterdir()} == {
        *(
            "weights.safetensors",
            "reid_config.json",
            "model.onnx",
            "model_uint8.onnx",
            "example.py",
            "README.md",
            "SHA256SUMS",
        )
    }
    config = json.loads((exported / "reid_config.json").read_text())
    assert config["architecture"] == SMALL
    assert config["preprocessing"]["input_size"] == [64, 32]
    assert config["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    card = (exported / "README.md").read_text()
    assert "A blurred face does not make a person anonymous" in card
    assert "library_name: reid" in card
    assert "| licence | CC0-1.0 |" in card
    assert len((exported / "example.py").read_text().splitlines()) <= 10
    with safetensors.safe_open(exported / "weights.safetensors", "numpy") as file:
        assert file.metadata()["model"] == SMALL


def test_both_programs_compute_the_same(exported, small):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3)).astype(np.uint8)
    expected = np.array(small.forward(pixels))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for name, taken, given in (("model", "images", normalized(pixels)), ("model_uint8", "image", pixels)):
        (found,) = onnxruntime.InferenceSession(exported / f"{name}.onnx").run(["features"], {taken: given})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.std())


def test_float_program_takes_imagenets_values_whatever_the_network_was_trained_with(tmp_path):
    """Trackers take no other; by hand, in float64."""
    plain = load.load("random:toy@32x16")
    own = dataclasses.replace(
        plain, preprocessing=dataclasses.replace(plain.preprocessing, mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    export_folder(own, tmp_path / "own", **ORIGIN)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 16, 3)).astype(np.uint8)
    x = ((pixels / 255 - 0.5) / 0.5).astype(np.float32)
    expected = np.asarray(own.module()(x), np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    session = onnxruntime.InferenceSession(tmp_path / "own" / "model.onnx")
    (found,) = session.run(None, {"images": normalized(pixels)})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.std())


def test_it_comes_back(exported, small):
    back = cion_jax.load(exported)
    assert (back.name, back.size, back.digest()) == (SMALL, (64, 32), small.digest())


@pytest.mark.parametrize("name", ["swin_tiny", "vit_small_patch16"])
def test_it_comes_back_under_timms_names(tmp_path, name):
    """Positions of the size that the folder is for; the second stage of Swin has the first one's name in timm."""
    backbone = folder.at_its_size(load.load(f"random:{name}@64x32"))
    tmp_path.joinpath("timm").mkdir()
    folder._write_weights(tmp_path / "timm" / "weights.safetensors", backbone)
    for name, text in folder.texts(backbone, "me/street").items():
        (tmp_path / "timm" / name).write_text(text)
    for spec in (tmp_path / "timm", tmp_path / "timm" / "weights.safetensors"):
        back = cion_jax.load(spec)
        assert back.digest() == backbone.digest()


def test_a_made_up_architecture_is_refused(tmp_path, small):
    export_folder(small, tmp_path / "mine", **ORIGIN)
    config = json.loads((tmp_path / "mine" / "reid_config.json").read_text())
    for said in ("osnet_x9_0", "timm:resnet50", "osnet_x1_0"):
        (tmp_path / "mine" / "reid_config.json").write_text(json.dumps(config | {"architecture": said}))
        with pytest.raises(WeightsError, match=f"has the architecture '{said}', the weights are of '{SMALL}'"):
            cion_jax.load(tmp_path / "mine")


def test_a_folder_that_reid_saved(tmp_path, small):
    """No word of ours in it; its architecture says which backbone it is, or that it is none."""
    named = torch_names.to_torch(small.params, small.stats)
    safetensors.numpy.save_file(named, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="does not say of which backbone it is"):
        cion_jax.load(tmp_path)
    config = folder.reid_config(SMALL, small.preprocessing)
    (tmp_path / "reid_config.json").write_text(json.dumps(config))
    assert cion_jax.load(tmp_path).digest() == small.digest()
    (tmp_path / "reid_config.json").write_text(json.dumps(config | {"architecture": "timm:resnet50"}))
    with pytest.raises(WeightsError, match="has the architecture 'timm:resnet50', expected one of"):
        cion_jax.load(tmp_path)
    letterbox = config | {"preprocessing": config["preprocessing"] | {"resize_mode": "letterbox"}}
    (tmp_path / "reid_config.json").write_text(json.dumps(letterbox))
    with pytest.raises(WeightsError, match="images that are not stretched"):
        cion_jax.load(tmp_path)
    (tmp_path / "reid_config.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        cion_jax.load(tmp_path)


def test_what_is_there_is_not_lost(tmp_path, small):
    place = tmp_path / "mine"
    place.mkdir()
    (place / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds something else; give another name"):
        export_folder(small, place, overwrite=True, **ORIGIN)
    assert (place / "thesis.tex").read_text() == "mine"
    (place / "thesis.tex").rename(place / "README.md")
    with pytest.raises(UserError, match="is there already; give another name, or --overwrite"):
        export_folder(small, place, **ORIGIN)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file, expected the name of a folder"):
        export_folder(small, tmp_path / "file", **ORIGIN)


def test_nothing_half_written_remains(tmp_path, small, monkeypatch):
    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "texts", stops)
    with pytest.raises(KeyboardInterrupt):
        export_folder(small, tmp_path / "mine", **ORIGIN)
    assert not [*tmp_path.iterdir()]


def test_an_adaptation_has_no_place(tmp_path, small):
    last = np.zeros(512, np.float32), np.eye(512, dtype=np.float32)
    with pytest.raises(UserError, match="have no layer for what --adapt learns; give --format=onnx"):
        export_folder(dataclasses.replace(small, last=last), tmp_path / "mine", **ORIGIN)


def test_from_python(tmp_path):
    card = cion_jax.export("random:toy@32x16", tmp_path / "mine")
    assert card == tmp_path / "mine" / "README.md"
    assert {path.name for path in card.parent.iterdir()} == {
        *("weights.safetensors", "model.onnx", "model_uint8.onnx", "example.py", "README.md", "SHA256SUMS")
    }
    again = cion_jax.export(tmp_path / "mine", tmp_path / "again")
    assert (again.parent / "model.onnx").read_bytes() == (tmp_path / "mine" / "model.onnx").read_bytes()


# With the real packages, in an environment of their own.
ENV = os.environ.get("CION_TORCH_ENV", "")


@pytest.fixture(scope="module")
def torch_python():
    """The Python of an environment with torch, timm, reid and onnxruntime; skips where there is none."""
    python = Path(ENV) / "bin" / "python"
    if not ENV or not python.is_file():
        pytest.skip("no environment with torch, timm and reid; set CION_TORCH_ENV to one (docs/results/loading.md)")
    return python


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "loads"),
    [
        (SMALL, {"reid"}),
        ("edgenext_x_small", {"reid", "timm"}),
        ("ghostnet_0_5", {"reid", "timm", "by_name"}),
        ("vit_small_patch16", {"timm"}),
        ("resnet18", {"network"}),
        ("repvit_m0_9", {"network"}),
        ("vit_tiny", {"network"}),
        ("osnet_ain_x1_0", {"network"}),
    ],
)
def test_real_packages_compute_our_features(tmp_path, torch_python, name, loads):
    """100 images. What does not compute them refuses; timm's own ResNet takes the weights and is far off."""
    from benchmarks import loading

    backbone = loading.shaken(load.load(f"random:{name}"))
    found = loading.elsewhere(torch_python, *loading.write(backbone, tmp_path, loading.images(100, backbone.size)))[
        "found"
    ]
    for loader in ("reid", "timm", "network"):
        assert isinstance(found[loader], str) == (loader not in loads), found
    for loader in ("onnx", "onnx_uint8", *loads - {"by_name"}):
        assert found[loader] < 1e-4, found
    if name == "resnet18":
        assert found["by_name"] > 0.1
    example = [
        str(torch_python),
        str(tmp_path / name / "example.py"),
        *map(str, sorted(tmp_path.glob("crops/*.png"))[:2]),
    ]
    done = subprocess.run(example, capture_output=True, text=True)
    assert f"(2, {backbone.features})" in done.stdout, done.stderr


def test_command(tmp_path):
    command = [sys.executable, "-m", "cion_jax.export", f"--checkpoint=random:{SMALL}@32x32", "--output=mine"]
    run = lambda *more: subprocess.run([*command, *more], capture_output=True, text=True, cwd=tmp_path, env=ENVIRON)  # noqa: E731
    pushed = run("--format=onnx", "--push=hf://me/mine")
    assert (pushed.returncode, "give --format=folder as well" in pushed.stderr) == (2, True)


ENVIRON = os.environ | {"PYTHONPATH": str(ROOT)}

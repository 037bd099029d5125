"""State dicts that people have, name by name as their programs write them: all of them are taken, strictly."""

import numpy as np
import pytest
import safetensors.numpy

from cion_jax import models
from cion_jax.weights import load, torch_names
from cion_jax.weights.torch_names import WeightsError
from tests import torch_writer as writer


def conv(name, outputs, inputs, size):
    return {f"{name}.weight": (outputs, inputs, size, size)}


def batch_norm(name, width):
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def layer_norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def torchvision_resnet50():
    """Of torchvision/models/resnet.py."""
    shapes, inputs = conv("conv1", 64, 3, 7) | batch_norm("bn1", 64), 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for number in range(depth):
            at = f"layer{stage + 1}.{number}"
            for i, (a, b, size) in enumerate(((inputs, width, 1), (width, width, 3), (width, 4 * width, 1)), 1):
                shapes |= conv(f"{at}.conv{i}", b, a, size) | batch_norm(f"{at}.bn{i}", b)
            if number == 0:
                shapes |= conv(f"{at}.downsample.0", 4 * width, inputs, 1) | batch_norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes | linear("fc", 1000, 2048)


def blocks(width, depth):
    """Of a ViT of timm, DINO or TransReID, with everything behind the patches."""
    shapes = {"cls_token": (1, 1, width)} | layer_norm("norm", width)
    for i in range(depth):
        at = f"blocks.{i}"
        shapes |= layer_norm(f"{at}.norm1", width) | layer_norm(f"{at}.norm2", width)
        shapes |= linear(f"{at}.attn.qkv", 3 * width, width) | linear(f"{at}.attn.proj", width, width)
        shapes |= linear(f"{at}.mlp.fc1", 4 * width, width) | linear(f"{at}.mlp.fc2", width, 4 * width)
    return shapes


def timm_vit_small():
    """vit_small_patch16_224 of timm, deit_small_patch16_224, dino_deitsmall16."""
    patches = conv("patch_embed.proj", 384, 3, 16) | {"patch_embed.proj.bias": (384,), "pos_embed": (1, 197, 384)}
    return patches | blocks(384, 12) | linear("head", 1000, 384)


def transreid_ssl_vit_small():
    """Of TransReID-SSL, pre-trained on LUPerson, 256x128 with a convolutional stem."""
    shapes = conv("patch_embed.conv.0", 64, 3, 7) | conv("patch_embed.conv.3", 64, 64, 3)
    shapes |= conv("patch_embed.conv.6", 64, 64, 3) | batch_norm("patch_embed.conv.7", 64)
    for at in ("patch_embed.conv.1", "patch_embed.conv.4"):
        shapes |= layer_norm(f"{at}.IN", 32) | batch_norm(f"{at}.BN", 32)
    shapes |= conv("patch_embed.proj", 384, 64, 8) | {"patch_embed.proj.bias": (384,), "pos_embed": (1, 129, 384)}
    return shapes | blocks(384, 12)


def numbers(shapes):
    rng = np.random.default_rng(0)
    return {name: np.array(7) if not shape else 0.5 + rng.random(shape, np.float32) for name, shape in shapes.items()}


def came_through(found, named, but=()):
    back = torch_names.to_torch(found.params, found.stats)
    for name in back.keys() - set(but):
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], named[name], err_msg=name)


def test_a_resnet_of_torchvision(tmp_path, capsys):
    named = numbers(torchvision_resnet50())
    safetensors.numpy.save_file(named, tmp_path / "w.safetensors")
    came_through(load.load(f"file:resnet50={tmp_path / 'w.safetensors'}"), named)
    assert "left out fc.bias (1000,), fc.weight (1000, 2048)" in capsys.readouterr().err
    del named["layer4.2.bn3.running_var"], named["fc.weight"], named["fc.bias"]
    with pytest.raises(WeightsError) as error:
        torch_names.from_torch(named | {"extra.weight": np.ones(1)}, *models.split(models.abstract("resnet50"))[1:])
    assert str(error.value).splitlines()[1:] == [
        "  1 missing: layer4.2.bn3.running_var",
        "  1 unexpected: extra.weight",
    ]


def test_a_vit_of_transreid_ssl(tmp_path, capsys):
    named = numbers(transreid_ssl_vit_small())
    saved = {"teacher": writer.state_dict({f"backbone.{name}": array for name, array in named.items()})}
    saved["student"] = writer.state_dict({"module.backbone.cls_token": named["cls_token"]})
    writer.save(tmp_path / "w.pth", saved)
    came_through(load.load(f"file:vit_small={tmp_path / 'w.pth'}"), named)
    assert "took teacher.backbone" in capsys.readouterr().err


@pytest.mark.parametrize("wrap", [lambda sd: {"model": sd}, lambda sd: sd], ids=["deit", "timm"])
def test_a_plain_vit(tmp_path, capsys, wrap):
    named = numbers(timm_vit_small())
    writer.save(tmp_path / "w.pth", wrap(writer.state_dict(named)))
    found = load.load(f"file:vit_small_patch16={tmp_path / 'w.pth'}")
    came_through(found, named, but=["pos_embed"])
    assert found.params["pos_embed"].shape == (1, 129, 384)
    np.testing.assert_array_equal(found.params["pos_embed"][:, 0], named["pos_embed"][:, 0])
    said = capsys.readouterr().err
    assert "pos_embed resized from 14x14 to 16x8 patches" in said
    assert "left out head.bias (1000,), head.weight (1000, 384)" in said
    at_224 = load.load(f"file:vit_small_patch16@224x224={tmp_path / 'w.pth'}")
    np.testing.assert_array_equal(at_224.params["pos_embed"], named["pos_embed"])


def test_every_family_is_asked_for_all_its_names():
    for name, shapes in (("resnet50", torchvision_resnet50()), ("vit_small", transreid_ssl_vit_small())):
        expected, derived = torch_names.expected(*models.split(models.abstract(name))[1:])
        assert {n for n in shapes if not n.startswith("fc.")} == {*expected, *derived}

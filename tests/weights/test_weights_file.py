"""What people bring: containers and prefixes of every wrapper, other types and grids, classifiers, whole modules."""

from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cion_jax import models
from cion_jax.weights import load, positions, torch_names
from cion_jax.weights.torch_names import WeightsError
from cion_jax.weights.weights_file import open_weights
from tests import recipe
from tests import torch_writer as writer
from tests.torch_writer import Call, Named

SIZE = (256, 128)
LIKE = {"conv1": {"kernel": np.zeros((3, 3, 3, 4), np.float32)}, "bn1": {"scale": np.zeros(4, np.float32)}}
NAMES = {"conv1.weight": (4, 3, 3, 3), "bn1.weight": (4,)}


def state(number, prefix="", **more):
    """A state dict that is full of a number."""
    named = {prefix + name: np.full(shape, number, np.float32) for name, shape in NAMES.items()}
    return writer.state_dict(named | {name.replace("__", "."): array for name, array in more.items()})


def taken(tmp_path, saved, network="teacher", label=""):
    """(the number that the weights are full of, what was said)."""
    path = tmp_path / "weights.pth"
    writer.save(path, saved)
    backbone, _ = open_weights(f"{path}{label}").network(LIKE, {}, SIZE, network)
    torch_names.from_torch(backbone, LIKE, {})
    (number,) = set(np.concatenate([array.ravel() for array in backbone.values()]).tolist())
    return number


ONE = np.ones(1, np.float32)
CONTAINERS = {
    "lightning": {"state_dict": state(1, "model.", criterion__weight=ONE), "epoch": 3},
    "lightning of a backbone": {"state_dict": state(1, "net.backbone.")},
    "compiled and parallel": state(1, "module._orig_mod."),
    "a baseline of ReID": state(1, "base.", bottleneck__weight=ONE, classifier__weight=np.ones((751, 4), np.float32)),
    "MoCo": {"state_dict": state(1, "module.encoder_q.") | state(2, "module.encoder_k."), "arch": "x"},
    "DINO": {"student": state(2, "module.backbone."), "teacher": state(1, "backbone.")},
    "timm's average": {"state_dict": state(2), "state_dict_ema": state(1)},
    "an average in the names": {"model": state(2, "net.") | state(1, "ema.")},
    "an average without all": {"model": state(1), "model_ema": writer.state_dict({"bn1.weight": np.ones(4, "f4")})},
    "any name at all": {"whatever": {"else": {"it": state(1, "is.called.here.")}}},
    "parameters": OrderedDict((n, writer.parameter(np.ones(s, np.float32))) for n, s in NAMES.items()),
    "a tuple": (state(1, "module."), 7),
    "a list of dicts": {"models": [state(1)], 3: "x"},
    "a list of pairs": [(n, writer.tensor(np.ones(s, np.float32))) for n, s in NAMES.items()],
    "wrapped layers": writer.state_dict(
        {
            "_fsdp_wrapped_module.conv1._checkpoint_wrapped_module.weight": np.ones((4, 3, 3, 3), np.float32),
            "_fsdp_wrapped_module.bn1._fsdp_wrapped_module._orig_mod.weight": np.ones(4, np.float32),
        }
    ),
    "a classifier": state(1, fc__weight=np.ones((10, 4), np.float32), fc__bias=np.ones(10, np.float32)),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_what_fits_the_model_is_found(tmp_path, kind):
    assert taken(tmp_path, CONTAINERS[kind]) == 1


def test_what_was_taken_and_what_not_is_said(tmp_path, capsys):
    assert taken(tmp_path, CONTAINERS["MoCo"] | {"other": writer.state_dict({"queue": ONE})}) == 1
    said = capsys.readouterr().err
    assert "took state_dict.module.encoder_q (2 tensors)" in said
    assert "state_dict.module.encoder_k would fit too: FILE#state_dict.module.encoder_k takes that" in said
    assert "not taken: other.queue (1 tensors)" in said
    assert taken(tmp_path, CONTAINERS["a classifier"]) == 1
    assert "left out fc.bias (10,), fc.weight (10, 4): a classifier" in capsys.readouterr().err
    assert taken(tmp_path, state(1)) == 1
    assert capsys.readouterr().err == ""


def test_another_one_is_taken_where_it_is_named(tmp_path):
    assert taken(tmp_path, CONTAINERS["MoCo"], label="#state_dict.module.encoder_k") == 2
    assert taken(tmp_path, CONTAINERS["timm's average"], label="#state_dict") == 2
    with pytest.raises(WeightsError, match=r"it has no ema; it has state_dict, state_dict_ema"):
        taken(tmp_path, CONTAINERS["timm's average"], label="#ema")


def test_thousands_of_dicts_and_prefixes_take_no_time(tmp_path):
    one = writer.tensor(np.ones(4, np.float32))
    saved = {f"d{i}": {} for i in range(5000)} | {"sd": OrderedDict((f"p{i}.bn1.weight", one) for i in range(5000))}
    writer.save(tmp_path / "weights.pth", saved)
    backbone, _ = open_weights(tmp_path / "weights.pth").network(LIKE, {}, SIZE)
    assert list(backbone) == ["bn1.weight"]


def test_students(tmp_path):
    assert taken(tmp_path, CONTAINERS["DINO"], "student") == 2
    assert taken(tmp_path, CONTAINERS["timm's average"], "student") == 2
    with pytest.raises(WeightsError, match="one network"):
        taken(tmp_path, state(1), "student")


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floating_point_numbers_are_cast(tmp_path, capsys, kind):
    named = {name: np.full(shape, 0.5, kind) for name, shape in NAMES.items()}
    for path, save in (("w.pth", lambda p: writer.save(p, writer.state_dict(named))), ("w.safetensors", None)):
        (save or (lambda p: safetensors.numpy.save_file(named, p)))(tmp_path / path)
        backbone, _ = open_weights(tmp_path / path).network(LIKE, {}, SIZE)
        assert {array.dtype.name for array in backbone.values()} == {"float32"}
        assert backbone["bn1.weight"].tolist() == [0.5] * 4
        assert f"cast 2 tensors from {np.dtype(kind).name} to float32" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    named = {name: np.full(shape, 0.5) for name, shape in NAMES.items()}
    named["bn1.weight"][2] = bad
    writer.save(tmp_path / "w.pth", writer.state_dict(named))
    with pytest.raises(WeightsError, match=r"1 of 2 weights are not finite .*: bn1\.weight"):
        open_weights(tmp_path / "w.pth").network(LIKE, {}, SIZE)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (Call(Named("net", "Net"), state={"training": True}), r"a whole module \(net\.Net\).*False\)\.state_dict\(\)"),
        ({"model": Call(Named("net", "Net"))}, r"torch\.load\(FILE, weights_only=False\)\['model'\]\.state_dict\(\)"),
    ],
)
def test_whole_modules(tmp_path, saved, message):
    with pytest.raises(WeightsError, match=message):
        taken(tmp_path, saved)


def test_many_misfits_are_counted_and_listed_in_a_file(tmp_path):
    path = tmp_path / "w.safetensors"
    named = {"conv1.weight": np.zeros((7, 7, 3, 64), np.float32), "fc1000.x\n": ONE} | {
        f"x{i}": ONE for i in range(300)
    }
    safetensors.numpy.save_file(named, path)
    with pytest.raises(WeightsError) as error:
        load.load(f"file:resnet18={path}")
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("  99 missing: bn1.bias, bn1.running_mean, bn1.running_var, bn1.weight, ")
    assert lines[1].endswith(" and 94 more")
    assert lines[2].startswith("  301 unexpected: fc1000.x\\n, x0, x1, x10, x100 and 296 more")
    assert lines[3] == "  1 of a wrong shape: conv1.weight is (7, 7, 3, 64), the model has (64, 3, 7, 7)"
    assert lines[4] == f"  all of them are listed in {path}.misfits.txt"
    assert len((tmp_path / "w.safetensors.misfits.txt").read_text().splitlines()) == 99 + 301 + 1


@pytest.mark.parametrize(
    ("count", "size", "grid"),
    [
        (196, (256, 128), (14, 14)),
        (128, (256, 128), (16, 8)),
        (192, (384, 128), (24, 8)),
        (192, (256, 128), (24, 8)),
        (576, (224, 224), (24, 24)),
        (210, (256, 128), (21, 10)),
    ],
)
def test_grids(count, size, grid):
    assert positions.grid_of(count, size) == grid


def test_a_count_that_is_no_grid():
    with pytest.raises(WeightsError, match="of 197 patches, which are no grid"):
        positions.grid_of(197, (256, 128))


def test_positions_are_resized_by_hand():
    """A column of two to four: samples at -0.25 (held at 0), 0.25, 0.75 and 1.25 (held at 1)."""
    table = np.array([9.0, 0.0, 0.0, 4.0, 4.0], np.float32).reshape(1, 5, 1)  # class token, then 2x2
    resized, said = positions.resize(table, (1, 9, 1), (64, 32))
    assert resized[0, :, 0].tolist() == [9, 0, 0, 1, 1, 3, 3, 4, 4]
    assert said == "resized from 2x2 to 4x2 patches"


@pytest.mark.parity
@pytest.mark.parametrize("size", [(384, 128), (256, 256)])
def test_positions_are_resized_as_in_the_released_code(fixtures, size):
    _, stored = recipe.load(fixtures / "downstream" / "transreid_pos_embed")
    expected = stored[f"loaded_{size[0]}x{size[1]}"]
    table = recipe._value(0, "pos_embed", (1, 129, 16), "embed", 1.0)
    got, _ = positions.resize(table, expected.shape, size)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_positions_of_the_wanted_grid_stay(tmp_path):
    trees = models.split(models.abstract("vit_tiny"))[1:]
    rng = np.random.default_rng(0)
    named = {n: rng.normal(size=s).astype(np.float32) for n, s in torch_names.expected(*trees)[0].items()}
    named["pos_embed"] = rng.normal(size=(1, 1 + 24 * 8, 192)).astype(np.float32)
    safetensors.numpy.save_file(named, tmp_path / "w.safetensors")
    found = load.load(f"file:vit_tiny@384x128={tmp_path / 'w.safetensors'}")
    np.testing.assert_array_equal(found.params["pos_embed"], named["pos_embed"])
    np.testing.assert_array_equal(found.module()._positions(24, 8), named["pos_embed"])
    found = load.load(f"file:vit_tiny={tmp_path / 'w.safetensors'}")
    assert found.params["pos_embed"].shape == (1, 129, 192)

"""PyTorch names <-> ours: axis orders by hand, exact round trips, and one error that lists everything."""

import jax
import numpy as np
import pytest

from cion_jax import models
from cion_jax.weights import torch_names


@pytest.fixture(scope="module")
def trees():
    """(params, stats) of shapes of resnet18_ibn."""
    _, params, stats = models.split(models.abstract("resnet18_ibn"))
    return params, stats


@pytest.fixture
def named(trees):
    """A state dict of distinct numbers for resnet18_ibn."""
    rng = np.random.default_rng(0)
    arrays = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), trees)
    return torch_names.to_torch(*arrays)


def test_axis_orders():
    params = {
        "conv": {"kernel": np.arange(24.0).reshape(2, 3, 1, 4)},  # h, w, in / groups, out
        "fc": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.arange(3.0)},  # in, out
        "norm": {"scale": np.arange(5.0)},
        "blocks": {"10": {"gamma": np.arange(2.0)}},
        "last_layer": {"weight_v": np.arange(6.0).reshape(2, 3), "weight_g": np.arange(3.0).reshape(1, 3)},
        "pos_embed": np.arange(24.0).reshape(1, 2, 3, 4),
    }
    stats = {"norm": {"mean": np.arange(5.0), "var": np.arange(5.0) + 1}}
    named = torch_names.to_torch(params, stats)
    assert set(named) == {
        *("conv.weight", "fc.weight", "fc.bias", "norm.weight", "blocks.10.gamma", "pos_embed"),
        *("last_layer.weight_v", "last_layer.weight_g"),
        *("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    }
    assert named["conv.weight"].shape == (4, 1, 2, 3)
    assert named["conv.weight"][3, 0, 1, 2] == params["conv"]["kernel"][1, 2, 0, 3]
    np.testing.assert_array_equal(named["fc.weight"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(named["last_layer.weight_v"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(named["last_layer.weight_g"], [[0], [1], [2]])
    np.testing.assert_array_equal(named["norm.running_var"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(named["pos_embed"], params["pos_embed"])
    assert named["norm.num_batches_tracked"] == 0
    assert named["norm.num_batches_tracked"].dtype == np.int64


def test_round_trip_is_exact(named, trees):
    params, stats = torch_names.from_torch(named, *trees)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (params, stats)) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), trees
    )
    back = torch_names.to_torch(params, stats)
    assert set(back) == set(named)
    for name, array in named.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_one_error_tells_of_everything(named, trees):
    del named["conv1.weight"]
    named["fc.weight"] = np.zeros((1000, 512), np.float32)
    named["bn1.weight"] = np.zeros(32, np.float32)
    named["bn1.bias"] = np.zeros(64, np.float16)
    with pytest.raises(ValueError, match="in 4 places") as error:
        torch_names.from_torch(named, *trees)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert lines == [
        "1 missing: conv1.weight",
        "1 unexpected: fc.weight",
        "1 of a wrong shape: bn1.weight is (32,), the model has (64,)",
        "1 of a wrong type: bn1.bias is float16, the model has float32",
    ]


def test_transposed_kernel_of_the_same_size_is_a_wrong_shape(named, trees):
    named["layer2.0.downsample.0.weight"] = named["layer2.0.downsample.0.weight"].transpose(1, 0, 2, 3)
    with pytest.raises(ValueError, match=r"layer2\.0\.downsample\.0\.weight is \(64, 128, 1, 1\)"):
        torch_names.from_torch(named, *trees)


def test_ignored_names_are_excused(named, trees):
    params, stats = torch_names.from_torch(named, *trees)
    del named["conv1.weight"]
    named["fc.weight"] = np.zeros((1000, 512), np.float32)
    with pytest.raises(ValueError, match=r"missing: conv1\.weight"):
        torch_names.from_torch(named, params, stats, ignore=[r"fc\..*"])
    loaded, _ = torch_names.from_torch(named, params, stats, ignore=[r"fc\..*", r"conv1\.weight"])
    np.testing.assert_array_equal(loaded["conv1"]["kernel"], params["conv1"]["kernel"])


def test_ignore_does_not_excuse_wrong_shapes(named, trees):
    named["bn1.weight"] = np.zeros(32, np.float32)
    with pytest.raises(ValueError, match=r"bn1\.weight"):
        torch_names.from_torch(named, *trees, ignore=[".*"])


def test_counters_may_be_missing_but_only_of_batch_norms(named, trees):
    del named["bn1.num_batches_tracked"]
    torch_names.from_torch(named, *trees)
    named["conv1.num_batches_tracked"] = np.zeros((), np.int64)
    with pytest.raises(ValueError, match=r"unexpected: conv1\.num_batches_tracked"):
        torch_names.from_torch(named, *trees)


def test_index_of_relative_positions_follows_from_the_table():
    """For a 2x2 window, row (y - y' + 1) * 3 + (x - x' + 1), by hand."""
    params = {"attn": {"relative_position_bias_table": np.zeros((9, 3), np.float32)}}
    named = torch_names.to_torch(params, {})
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(named["attn.relative_position_index"], expected)
    torch_names.from_torch(named, params, {})
    named["attn.relative_position_index"] = named["attn.relative_position_index"].T
    with pytest.raises(ValueError, match="wrong value"):
        torch_names.from_torch(named, params, {})

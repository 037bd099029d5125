"""Weights in several files with an index, as Hugging Face's libraries write them."""

import json

import numpy as np
import pytest
import safetensors.numpy

from cion_jax.weights.torch_names import WeightsError
from cion_jax.weights.weights_file import open_weights
from tests import torch_writer as writer
from tests.weights.test_weights_file import LIKE, NAMES, SIZE

SAFE = "model-{}-of-00002.safetensors", "model.safetensors.index.json"
TORCH = "pytorch_model-{}-of-00002.bin", "pytorch_model.bin.index.json"


def written(folder, kind=SAFE, **change):
    """A tensor in each of two files; the index, with changes to where tensors are."""
    name, index = kind
    where = dict(zip(NAMES, (name.format("00001"), name.format("00002")), strict=True))
    for number, (tensor, file) in enumerate(where.items()):
        array = {tensor: np.full(NAMES[tensor], number, np.float32)}
        if kind is SAFE:
            safetensors.numpy.save_file(array, folder / file)
        else:
            writer.save(folder / file, writer.state_dict(array))
    map_ = {"weight_map": where | {key.replace("__", "."): file for key, file in change.items()}}
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 448}} | map_))
    return folder / index


@pytest.mark.parametrize("kind", [SAFE, TORCH])
def test_an_index_is_read_with_all_its_files(tmp_path, kind):
    backbone, _ = open_weights(written(tmp_path, kind)).network(LIKE, {}, SIZE)
    assert {name: set(array.ravel().tolist()) for name, array in backbone.items()} == {
        "conv1.weight": {0},
        "bn1.weight": {1},
    }


def test_a_file_of_several_is_not_taken_for_all(tmp_path):
    written(tmp_path)
    with pytest.raises(WeightsError, match=r"one of 2 files of one network; give their index, .*index\.json"):
        open_weights(tmp_path / "model-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"fc__weight": "model-00003-of-00002.safetensors"},
            "1 of 3 files|00003-of-00002.safetensors of 3 files are not",
        ),
        ({"fc__weight": "model-00001-of-00002.safetensors"}, r"fc\.weight are not in the files"),
        ({"fc__weight": "../model.safetensors"}, r"names \.\./model\.safetensors; expected names of files beside it"),
        ({"fc__weight": 3}, "is no index of weights: it names no files"),
    ],
)
def test_what_an_index_may_not_say(tmp_path, change, message):
    with pytest.raises(WeightsError, match=message):
        open_weights(written(tmp_path, **change))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"weight_map": []}', b'{"weight_map": {}}', b"[" * 9999])
def test_what_is_no_index(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json is no index of weights"):
        open_weights(tmp_path / "model.safetensors.index.json")

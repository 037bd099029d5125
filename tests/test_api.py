"""The Python interface: what a notebook calls."""

import json
import subprocess
import sys

import numpy as np
import pytest

import cion_jax
from tests import toy
from tests.test_evaluate import street

__all__ = ["street"]  # a fixture


def test_importing_it_imports_neither_jax_nor_tensorflow():
    code = "import sys, cion_jax; print({'jax', 'tensorflow', 'grain'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_train_load_embed(shards, tmp_path):
    """A run by name of its config and by frozen settings; images of any size."""
    config, rows = toy.config(shards, train__steps=1), []
    trained = cion_jax.train(config, tmp_path, on_row=rows.append)
    assert rows == [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1]
    backbone = cion_jax.load(tmp_path)
    images = [np.full((40, 20, 3), color, np.uint8) for color in (0, 90)]
    np.testing.assert_array_equal(trained(images), backbone(images))
    assert (backbone.step, backbone.features, backbone(images).shape) == (1, 16, (2, 16))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.stepz": 1}, r"there is no config.train.stepz; did you mean 'steps'"),
        ({"trian.steps": 1}, r"there is no config.trian.steps; did you mean 'train'"),
        ({"data.path": ""}, r"config.data.path is empty"),
    ],
)
def test_wrong_settings_of_a_packaged_config(tmp_path, settings, message):
    with pytest.raises(cion_jax.UserError, match=message):
        cion_jax.train("vit_b", tmp_path, settings)


def test_a_config_that_does_not_exist(tmp_path):
    with pytest.raises(cion_jax.UserError, match="did you mean 'vit_b'"):
        cion_jax.train("vit_bb", tmp_path)


def test_evaluate(street):
    found = cion_jax.evaluate("random:toy@32x16", "market1501", street)
    assert 0 < found["mAP"] <= 1


def test_export(tmp_path):
    card = cion_jax.export("random:toy@32x16", tmp_path / "toy.safetensors", licence="CC0-1.0")
    assert card == tmp_path / "toy.safetensors.md"
    assert {"| licence | CC0-1.0 |", "| weights from | `random:toy@32x16` |"} <= {*card.read_text().splitlines()}
    assert cion_jax.load(tmp_path / "toy.safetensors").digest() == cion_jax.load("random:toy@32x16").digest()
    with pytest.raises(cion_jax.UserError, match=r"of no format that can be written; expected a name in .*\.onnx"):
        cion_jax.export("random:toy@32x16", tmp_path / "toy.pt")

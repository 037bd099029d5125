"""A run of before there were tasks: `golden/run_before_tasks.tar.gz` holds its config, its rows and checkpoint 4 of 17.

It was written by `train(toy.config(shards, model__hidden=8, model__bottleneck=8), ...)`, stopped after step 4;
`whole_metrics.jsonl` are the rows of the run that went on, by the program of that time but for one thing: since hues no
longer depend on how exact a division is, some levels are others, so its `shift_hue` got the same two nudges.
"""

import json
import tarfile

import numpy as np
import pytest

from cion_jax.weights.load import load
from tests import toy
from tests.conftest import ROOT
from tests.runs import Process, finish, numbers


@pytest.fixture
def old(tmp_path):
    """Workdir of the run as it was left."""
    with tarfile.open(ROOT / "tests" / "golden" / "run_before_tasks.tar.gz") as file:
        file.extractall(tmp_path / "w", filter="data")
    return tmp_path / "w"


@pytest.mark.parametrize(
    ("optimized", "rtol"),
    [
        pytest.param(False, 1e-4, id="quickly"),  # what two programs of one computation differ by, as of other goldens
        pytest.param(True, 1e-6, id="as it was", marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_as_it_would_have_then(old, shards, optimized, rtol):
    """To the last digit but for what another version of XLA may round otherwise, where it is optimized as it was."""
    small = {"model.hidden": 8, "model.bottleneck": 8, "mesh.model": 4, "train.steps": 7}
    eight = "--xla_force_host_platform_device_count=8"
    environ = {"XLA_FLAGS": eight, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"} if optimized else {}
    finish(Process(old, shards, *(f"--config.{name}={value}" for name, value in small.items()), devices=8, **environ))
    whole = [json.loads(line) for line in (old / "whole_metrics.jsonl").read_text().splitlines()]
    for ours, theirs in zip(numbers(old), whole[:7], strict=True):
        ours.pop("teacher_dimensions", None)  # measured since
        np.testing.assert_allclose([*ours.values()], [theirs[name] for name in ours], rtol=rtol)


def test_its_teacher_can_be_taken(old):
    backbone = load(str(old))
    assert (backbone.name, backbone.size, backbone.step) == ("toy", (32, 16), 4)
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)
    assert len(backbone.head["mlp"]) == 3
    features = backbone([np.full((32, 16, 3), 128, np.uint8)])
    assert features.shape == (1, toy.Toy.features)
    assert np.isfinite(features).all()

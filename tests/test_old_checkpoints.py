"""A run of before there were tasks: `golden/run_before_tasks.tar.gz` holds its config, its rows and checkpoint 4 of 17.

It was written by `train(toy.config(shards, model__hidden=8, model__bottleneck=8), ...)`, stopped after step 4;
`whole_metrics.jsonl` are the rows of the run that went on.
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


def test_it_goes_on_as_it_would_have_then(old, shards):
    """To the last digit but for what another version of XLA may round otherwise; it was optimized, so this one is."""
    small = (
        "--config.model.hidden=8",
        "--config.model.bottleneck=8",
        "--config.mesh.model=4",
        "--config.train.steps=7",
    )
    eight = "--xla_force_host_platform_device_count=8"
    finish(Process(old, shards, *small, XLA_FLAGS=eight, JAX_DISABLE_MOST_OPTIMIZATIONS="0"))
    whole = [json.loads(line) for line in (old / "whole_metrics.jsonl").read_text().splitlines()]
    for ours, theirs in zip(numbers(old), whole[:7], strict=True):
        np.testing.assert_allclose([*ours.values()], [theirs[name] for name in ours], rtol=1e-6)


def test_its_teacher_can_be_taken(old):
    backbone = load(str(old))
    assert (backbone.name, backbone.size, backbone.step) == ("toy", (32, 16), 4)
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)
    assert len(backbone.head["mlp"]) == 3
    features = backbone([np.full((32, 16, 3), 128, np.uint8)])
    assert features.shape == (1, toy.Toy.features)
    assert np.isfinite(features).all()

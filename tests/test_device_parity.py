"""The comparison of devices: eight CPU devices compute what one does, and a wrong number is seen."""

import functools
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks import device_parity, parity_cases
from benchmarks.common import ROOT
from cion_jax import models
from cion_jax.common.paths import path_name
from tests import miniatures, toy

miniatures.register()
QUICK = ["head", "loss", "backbone toy"]


@functools.lru_cache(1)  # both types of a case come one after the other
def _expected(case):
    return device_parity.numbers(case, "float32", parity_cases.mesh_of(jax.devices()[:1]))


def _measured(case, dtype):
    return device_parity.outcome(case, dtype, parity_cases.mesh_of(jax.devices()), _expected(case))


@pytest.mark.parametrize("case", QUICK)
def test_eight_devices_compute_what_one_does(case):
    found = _measured(case, "float32")
    assert found.good, found
    assert found.errors.keys() == {"features", "loss", "gradient"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", parity_cases.cases([name for name in toy.ZOO if "large" not in name]))
def test_eight_devices_compute_what_one_does_in_all_cases(case, dtype):
    found = _measured(case, dtype)
    assert found.good, found


@pytest.mark.parametrize(
    ("name", "small", "large"),
    [
        ("osnet_x0_25", "conv2/0/conv3/bn/scale", "conv2/0/conv1/bn/scale"),
        ("osnet_ain_x1_0", "conv2/0/IN/scale", "conv2/0/conv1/bn/scale"),
        ("osnet_ibn_x1_0", "conv2/0/conv3/bn/scale", "conv2/0/IN/scale"),  # its InstanceNorm is behind the sum
        ("osnet_ain_x1_0", "conv4/1/conv3/bn/scale", "conv1/bn/scale"),
        ("resnet50_ibn", "layer2/0/bn3/scale", "layer2/0/bn2/scale"),
        ("repvit_m1_0", "features_/1/channel_mixer/m/2/bn/scale", "features_/1/token_mixer/0/bn/scale"),
    ],
)
def test_what_branches_add_is_drawn_small(name, small, large):
    params = models.split(models.abstract(name))[1]
    drawn = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parity_cases.draw(params))}
    assert np.mean(drawn[small]) == pytest.approx(0.1, abs=0.05)
    assert np.mean(drawn[large]) == pytest.approx(1, abs=0.1)


def test_every_kind_of_task_has_a_step():
    assert {f"step {kind}" for kind in ("distill", "supervised", "cluster")} <= parity_cases.cases([]).keys()


def _numbers():
    rng = np.random.default_rng(0)
    names = {"features": (8, 4), "loss": (), "gradient/kernel": (4, 4), "gradient/bias": (4,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in names.items()}


@pytest.mark.parametrize(
    ("name", "factor", "good"),
    [
        ("features", 1 + 9e-5, True),
        ("features", 1 + 2e-4, False),
        ("gradient/bias", 1 + 9e-4, True),
        ("gradient/bias", 1 + 2e-3, False),
        ("loss", np.nan, False),
    ],
)
def test_an_error_beyond_its_bound_is_seen(name, factor, good):
    expected = _numbers()
    found = expected | {name: np.float32(expected[name] * factor)}
    errors = device_parity.compare("backbone vit_tiny", "float32", found, expected)
    assert device_parity.Outcome("", "", errors, 0.0).good is good
    assert good or errors[name.split("/")[0]][2] == name


@pytest.mark.slow
def test_a_bias_that_is_not_scaled_is_seen(monkeypatch):
    """What XLA did to a (x W + b) on a GPU, done here to VOLO's outlook attention."""
    one = parity_cases.mesh_of(jax.devices()[:1])
    expected = device_parity.numbers("backbone toy_volo", "float32", one)
    linear = models.layers.Linear
    monkeypatch.setattr(linear, "scaled", lambda self, x, a: a * self(x) + (1 - a) * self.bias[...])
    found = device_parity.outcome("backbone toy_volo", "float32", one, expected)
    assert not found.good
    assert not found.failed


def test_a_case_that_fails_is_a_row(monkeypatch):
    monkeypatch.setattr(device_parity, "numbers", lambda *_: 1 / 0)
    found = device_parity.outcome("head", "float32", None, {})
    assert not found.good
    assert "ZeroDivisionError" in device_parity.row(found)[5]
    assert device_parity.row(found)[-1] == "FAILED"


def test_on_an_accelerator_a_process_computes_both_sides_of_a_case():
    """Here of one CPU device: no error, and no number that is missing."""
    soon, now = time.time() + 300, time.time()
    found = list(device_parity._against_cpu(["head", "loss"], ["float32"], soon))
    assert {(o.case, o.failed, o.good) for o in found} == {("head", "", True), ("loss", "", True)}
    late = list(device_parity._against_cpu(["head"], ["float32", "bfloat16"], now))
    assert [(o.case, o.dtype, o.failed) for o in late] == [
        ("head", dtype, device_parity.LATE) for dtype in device_parity.DTYPES
    ]


def test_a_case_without_a_reference_is_a_row():
    found = list(device_parity._against_cpu(["no such case"], ["float32"], time.time() + 300))
    assert [o.good for o in found] == [False]
    assert "the reference failed" in found[0].failed


def test_a_case_that_is_none_is_refused():
    """It would be a comparison of nothing, and all of it within its bounds."""
    command = [sys.executable, "-m", "benchmarks.device_parity", "--cases=head,los"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode
    assert "los: no such name; there are backbone, head, loss, views, step" in done.stderr

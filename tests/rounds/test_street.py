"""The command on videos of the street, as the guide shows it."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

import cion_jax
from tests.runs import ROOT


def command(*arguments):
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_from_videos_to_the_exported_network(tmp_path):
    street = ("--people=12", "--videos=4", "--seconds=12", "--seed=0")
    assert command("data_prep.synthetic.street", f"--output={tmp_path}/street", *street)[0] == 0
    adapt = (
        *("cion_jax.adapt", "--source=mot", f"--input={tmp_path}/street/videos", f"--output={tmp_path}/out"),
        *("--checkpoint=random:osnet_x0_25@64x32", "--steps=2", "--rounds=1", "--config.mot.first_frame=1"),
    )
    status, said, errors = command(*adapt)
    assert status == 0, errors
    assert f"{tmp_path}/out/export" in said.splitlines()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["round"] for row in report["rounds"]] == [0, 1]

    kept = cion_jax.load(tmp_path / "out" / "export")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), np.uint8)
    features = kept(list(images))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "export" / "model_uint8.onnx"))
    served = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(served, features / np.linalg.norm(features, axis=1, keepdims=True), atol=1e-4)

    assert command(*adapt)[0] == 0  # again: nothing is left to do
    status, _, errors = command(*adapt, "--rounds=2")
    assert (status, "Traceback" in errors) == (2, False)
    assert "was begun with other settings" in errors

"""The command on videos of the street, as the guide shows it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

import cion_jax
from tests import torch_writer
from tests.runs import ROOT


def command(*arguments, cwd=ROOT):
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environ
    )
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


# What the guide's names stand for here, and what makes its commands short.
PLACES = {
    "VIDEOS": "street/videos",
    "CROPS": "street/benchmark/bounding_box_test",
    "FILE.pth": "osnet_x0_25_msmt17.pth",
}
FIRST_FRAME = "mot.first_frame=1"
SMALL = ("--config.image.height=64", "--config.image.width=32", "--config.image.pad=4")
BRIEFLY = {
    "cion_jax.adapt": ("--minutes=0", "--steps=2", "--rounds=1", f"--config.{FIRST_FRAME}"),
    "cion_jax.embed": (f"--source_setting={FIRST_FRAME}",),
    "cion_jax.train": ("--config.data.iterations=2", "--config.train.epochs=1", *SMALL),
}


def guide():
    """Modules of the guide's commands and their arguments; the exported folder's example is no module."""
    text = (ROOT / "docs" / "guides" / "your_cameras.md").read_text().replace("\\\n", " ")
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for program, *arguments in (shlex.split(line, comments=True) for line in block.splitlines()):
            if program.startswith("cion-"):
                yield f"cion_jax.{program.removeprefix('cion-')}", arguments
            elif arguments[0] == "-m":
                yield arguments[1], arguments[2:]


@pytest.mark.slow
def test_every_command_of_the_guide(tmp_path):
    """The exported folder's example, which wants PyTorch, is run by `tests/test_export_folder.py`."""
    street = ("--people=8", "--videos=4", "--seconds=8", "--seed=0", "--benchmark_people=8")
    assert command("data_prep.synthetic.street", f"--output={tmp_path}/street", *street)[0] == 0
    for tracks in (tmp_path / "street" / "videos").glob("*/tracks.txt"):
        tracks.rename(tracks.with_name("gt.txt"))  # as where true tracks are at hand
    cion_jax.export("random:osnet_x0_25", weights := tmp_path / "random.safetensors")
    torch_writer.save(tmp_path / "osnet_x0_25_msmt17.pth", torch_writer.state_dict(load_file(weights)))
    shutil.copy(next((tmp_path / "street/benchmark/query").iterdir()), tmp_path / "PERSON.jpg")
    for module, arguments in guide():
        for name, place in PLACES.items():
            arguments = [argument.replace(name, place) for argument in arguments]
        status, _, errors = command(module, *arguments, *BRIEFLY.get(module, ()), cwd=tmp_path)
        assert status == 0, (module, arguments, errors)
    assert {"CUT", "OUT", "USL", "gallery.parquet"} <= {path.name for path in tmp_path.iterdir()}

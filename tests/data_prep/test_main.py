"""The command itself, as a newcomer types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_prep.painted import paint

ROOT = Path(__file__).resolve().parent.parent.parent
# Runs the package and says whether JAX came in on the way.
RUN = """
import runpy, sys
sys.modules.update(dict.fromkeys({absent}))
try:
    runpy.run_module("data_prep", run_name="__main__", alter_sys=True)
finally:
    print("jax imported:", "jax" in sys.modules)
"""


def call(*flags, cwd, absent=()):
    """`absent` are packages that are not installed."""
    command = [sys.executable, "-c", RUN.format(absent=absent), *map(str, flags)]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(cwd)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_from_tracklets_to_shards_without_jax(tmp_path):
    paint(tmp_path / "in")
    flags = ("--source=tracklets", "--input=~/in", "--embedder=color", "--output=out", "--config.sigma_cst=0.3")
    (tmp_path / "in" / "notes.txt").touch()
    done = call(*flags, "--", "--direct_num_workers=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "jax imported: False" in done.stdout
    assert "cross_video" in done.stdout
    assert "1 file out of place, first " in done.stdout
    for name in ("report.html", "README.md", "metrics.json", "provenance.parquet"):
        assert f"out/{name}" in done.stdout
        assert (tmp_path / "out" / name).is_file()
    assert "reading and embedding: 2/2" in done.stderr
    assert "the published thresholds are taken" in done.stderr  # five tracklets are too few to calibrate with
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["calibration"] == {"calibrated": False, "different people": "too few tracklets"}
    thresholds = metrics["thresholds"]
    assert (thresholds["sigma_cst"], thresholds["sigma_drm"], thresholds["r_s"]) == (0.3, 0.18, 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--source=tracklts", "--input=in"], "did you mean 'tracklets'"),
        (["--source=tracklets", "--input=in", "--config.sigma_cts=1"], "did you mean 'sigma_cst'"),
        (["--source=tracklets", "--input=in", "--output=in"], "in is not empty"),
        (["--source=tracklets", "--input=in", "--runner=X"], "flag of Apache Beam; these come after --, behind all"),
        (
            ["--source=tracklets", "--input=in", "--output=gs://b/out"],
            "--output=gs://b/out is a URL, expected a path",
        ),
    ],
)
def test_a_mistake_is_one_message_and_status_2(tmp_path, flags, message):
    paint(tmp_path / "in")
    given = {flag.split("=")[0] for flag in flags}
    defaults = {"--embedder": "color", "--output": "out"}
    flags = [*flags, *(f"{name}={value}" for name, value in defaults.items() if name not in given)]
    done = call(*flags, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_without_its_extra_it_says_what_to_install(tmp_path):
    paint(tmp_path / "in")
    flags = ("--source=tracklets", "--input=in", "--embedder=color", "--output=out")
    done = call(*flags, cwd=tmp_path, absent=("apache_beam",))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: data_prep needs more packages (")
    assert line.endswith("pip install 'cion-jax[prep]'")

"""Scripts that start runs: linted, and what they would do compared with a golden text."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import toy
from tests.conftest import QUICKLY
from tests.runs import ROOT, rows

LAUNCH = ROOT / "launch"
GOLDEN = ROOT / "tests" / "golden" / "launch.txt"
RUN = ("--config=configs/vit_b.py", "--workdir=/shared/run", "--config.data.path=/shared/da ta")
DRY_RUNS = (
    ("local.sh", "2", *RUN),
    *(("slurm.sh", verb, *RUN) for verb in ("start", "job", "logs", "stop")),
    *(("tpu_vm.sh", verb, *RUN) for verb in ("start", "resume", "logs", "stop", "delete")),
    *(("gke.sh", verb) for verb in ("start", "logs", "stop")),
)


def _bash(*command, **environ):
    return subprocess.run(
        ["bash", LAUNCH / command[0], *command[1:]],
        env={"PATH": os.environ["PATH"], "PORT": "8476", **environ},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def _dry_runs():
    text = ""
    for script, *arguments in DRY_RUNS:
        done = _bash(script, "--dry-run", *arguments)
        assert done.returncode == 0, done.stderr
        text += f"$ launch/{script} {' '.join(arguments)}\n{done.stdout}\n"
    return re.sub(re.escape(str(ROOT)) + r"(?!\w)", "CHECKOUT", text)  # not the start of another name


def test_dry_runs_are_the_golden_text():
    """To accept a change: `python -m tests.test_launch` writes the text anew."""
    assert _dry_runs() == GOLDEN.read_text()


def test_settings_of_the_environment_reach_the_commands():
    said = _bash("slurm.sh", "--dry-run", "start", *RUN, NODES="4", GPUS="2", TIME="1:00").stdout
    assert "--nodes=4 --ntasks-per-node=2 --gpus-per-node=2" in said
    said = _bash("tpu_vm.sh", "--dry-run", "start", *RUN, TPU_TYPE="v5litepod-256", TPU_SPOT="1").stdout
    assert "--accelerator-type=v5litepod-256" in said
    assert "--spot" in said


@pytest.mark.parametrize("command", [("local.sh",), ("local.sh", "two", *RUN), ("slurm.sh", "start"), ("gke.sh",)])
def test_a_wrong_command_says_what_is_right(command):
    done = _bash(*command)
    assert done.returncode == 2
    assert "usage: bash launch/" in done.stderr
    assert not done.stdout


def _linted(name, *arguments):
    linter = shutil.which(name, path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip(f"{name} is not installed in this environment; `bash launch/venv.sh` installs it")
    done = subprocess.run([linter, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [*sorted(LAUNCH.glob("*.sh")), ROOT / ".ci/run"], ids=lambda path: path.name)
def test_scripts_are_clean(path):
    _linted("shellcheck", "-x", path.relative_to(ROOT))


def test_the_dockerfile_is_clean():
    _linted("hadolint", "Dockerfile")


def test_the_image_is_what_gke_runs():
    image = dict(re.findall(r"^(\w+) (.*)", (ROOT / "Dockerfile").read_text(), re.M))
    _, job = yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert image["WORKDIR"] == container["workingDir"]
    assert json.loads(image["ENTRYPOINT"]) == container["command"]
    # What the build reads is not left out of it.
    left_out = (ROOT / ".dockerignore").read_text().split()
    assert not {"launch", "configs", "cion_jax", "data_prep", "requirements.txt", "setup.py"} & set(left_out)


def test_a_wrong_kind_of_environment_is_refused(tmp_path):
    done = subprocess.run(
        ["bash", "-c", f". {LAUNCH}/venv.sh"],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable, "CION_EXTRA": "cuda11"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "no CION_EXTRA=cuda11; give cuda12, cuda13, tpu" in done.stderr


def test_the_job_of_gke():
    service, job = yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    x, y = re.fullmatch(r"(\d+)x(\d+)", pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]).groups()
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(x) * int(y) / chips
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert (ROOT / container["args"][0].removeprefix("--config=")).is_file()
    codes = {
        r["action"]: r["onExitCodes"]["values"] for r in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in r
    }
    assert codes == {"FailJob": [1, 2], "Ignore": [75, 76]}  # cion_jax/train.py


@pytest.mark.slow
def test_processes_started_by_hand_are_one_run(tmp_path):
    """With a real network; then one of the two is killed, then the rest is done."""
    toy.write_shards(tmp_path / "shards")
    flags = ("--config=configs/demo.py", f"--workdir={tmp_path}/w", f"--config.data.path={tmp_path}/shards")
    flags += ("--config.data.batch_size=8", "--config.data.curriculum=((0,2),)", "--config.train.log_every=1")
    flags += ("--config.train.epochs=4", "--config.train.checkpoint_every=1", "--config.model.prototypes=32")
    environ = {**os.environ, "XLA_FLAGS": QUICKLY}
    command = ["bash", LAUNCH / "local.sh", "2", *flags]
    run = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "w/logs/process_0.log"
    while not (log.exists() and "step 2/" in log.read_text()):
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    of_run = ["pgrep", "-f", f"{tmp_path}/w .*--process=1"]
    os.kill(int(subprocess.check_output(of_run, text=True)), signal.SIGKILL)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGKILL
    assert re.search(r"process 0 ended with status 76: error: process 1 \(.*\) is gone", said)
    subprocess.run(command, env=environ, cwd=ROOT, check=True, timeout=600)
    assert [row["step"] for row in rows(tmp_path / "w")] == list(range(1, 21))


if __name__ == "__main__":
    GOLDEN.write_text(_dry_runs())

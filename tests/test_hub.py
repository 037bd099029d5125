"""Weights to and from the Hugging Face Hub, of which a stand-in runs here."""

import json
import os
import subprocess
import sys

import pytest

from cion_jax.common.extras import MissingPackageError
from cion_jax.weights import hub, load
from cion_jax.weights.hub import HubError
from tests import hub_server
from tests.conftest import ROOT

CHECKPOINT = "random:vit_tiny@256x128"  # quick to begin, to compile, and no position is resampled


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    with hub_server.running() as running:
        yield running


def python(server, folder, *arguments):
    """Runs a command whose Hub is the stand-in: the library reads its address once, when it is imported."""
    told = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "HF_TOKEN": "hf_mine"}
    told |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | told)


def test_pushed_and_loaded(server, tmp_path):
    """One folder there and back; a file of it by its name; what the Hub does not have is one message."""
    flags = [f"--checkpoint={CHECKPOINT}", "--format=folder", "--output=mine", "--push=hf://me/street"]
    done = python(server, tmp_path, "-m", "cion_jax.export", *flags)
    assert done.returncode == 0, done.stderr
    stored = server.repositories["me/street"]
    assert {name for name in stored if not name.startswith(".")} == {
        path.name for path in (tmp_path / "mine").iterdir()
    }
    assert stored["weights.safetensors"] == (tmp_path / "mine" / "weights.safetensors").read_bytes()
    assert {token for _, token in server.asked} == {"Bearer hf_mine"}
    code = (
        "import cion_jax\n"
        "for spec in ('hf://me/street', 'hf://me/street/weights.safetensors',\n"
        "             'file:vit_tiny@256x128=hf://me/street/weights.safetensors'):\n"
        "    print(cion_jax.load(spec).digest())\n"
        "for spec in ('hf://me/nothing', 'hf://me/street/none.pth', 'hf://street'):\n"
        "    try:\n"
        "        cion_jax.load(spec)\n"
        "    except cion_jax.UserError as error:\n"
        "        print(error)\n"
    )
    said = python(server, tmp_path, "-c", code).stdout.splitlines()
    assert said[:3] == [load.load(CHECKPOINT).digest()] * 3
    assert said[3].startswith("hf://me/nothing cannot be fetched: RepositoryNotFoundError: 404")
    assert said[4].startswith("hf://me/street/none.pth cannot be fetched: ")
    assert said[5] == "hf://street is no address on the Hub; expected hf://ORG/NAME, /FILE behind it for one file"


def test_a_folder_for_the_hub_tells_reid_where_timm_reads_its_arguments(tmp_path):
    from cion_jax.exporting import folder

    swin = load.load("random:swin_tiny@32x32")
    assert "reid_config.json" not in folder.texts(swin)
    texts = folder.texts(swin, "me/street")
    assert json.loads(texts["reid_config.json"])["architecture"] == "timm:hf-hub:me/street"
    assert json.loads(texts["config.json"])["model_args"] == {
        "img_size": [32, 32],
        "window_size": 8,
        "always_partition": True,
    }


def test_no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = r"^hf://me/street needs more packages \(.*\); pip install 'cion-jax\[hub\]'"
    with pytest.raises(MissingPackageError, match=message):
        load.load("hf://me/street")


@pytest.mark.parametrize("target", ["hf://me", "me/street", "hf://me/street/file", "hf://me/street@main"])
def test_where_nothing_can_be_pushed(target):
    with pytest.raises(HubError, match=r"hf://"):
        hub.repository_of(target)

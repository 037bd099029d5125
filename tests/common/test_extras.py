"""Packages that only some installations have: what is said where one is missing."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from cion_jax.common import extras
from cion_jax.common.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_missing_package_is_a_message_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    message = r"^--format=onnx needs more packages \(.*onnx.*\); pip install 'cion-jax\[onnx\]'"
    with pytest.raises(UserError, match=message), extras.needed("--format=onnx", "onnx"):
        importlib.import_module("onnx")


def test_other_mistakes_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), extras.needed("this", "onnx"):
        _ = 1 / 0


def test_every_extra_that_is_named_exists():
    files = [path for package in ("cion_jax", "data_prep") for path in (ROOT / package).rglob("*.py")]
    named = {name for path in files for name in re.findall(r'needed\("[^"]+", "(\w+)"\)', path.read_text("utf-8"))}
    assert {"prep", "onnx", "openvino"} <= named
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert named <= project["optional-dependencies"].keys()

"""The documentation says what is so: every setting is explained, every command that is shown can be given."""

import dataclasses
import importlib.util
import re
import tomllib
import typing

import pytest

from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
_SOURCES = [path for package in ("cion_jax", "data_prep") for path in (ROOT / package).rglob("*.py")]
_OF_ABSL = {"help", "helpfull"}


def _hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _commands(page):
    """Our commands in the code blocks of a page, whole lines without comments and without what is Beam's."""
    for block in re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", page.read_text(), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.partition(" #")[0].partition(" -- ")[0]
            program = re.search(r"(?:^|\s)(cion-(?!jax)\w+|-m (?:cion_jax|data_prep)(?:\.\w+)*)", command)
            if program:
                yield program[1].removeprefix("-m "), command


def _defined():
    """Names of all flags that any program defines."""
    pattern = re.compile(r"(?:flags\.DEFINE_\w+|define_number)\(\s*\"(\w+)\"")
    return {name for path in _SOURCES for name in pattern.findall(path.read_text())} | _OF_ABSL | {"config"}


def _is_setting(cls, parts):
    if not parts:
        return True
    return parts[0] in {field.name for field in dataclasses.fields(cls)} and (
        len(parts) == 1 or _is_setting(typing.get_type_hints(cls)[parts[0]], parts[1:])
    )


def test_every_setting_is_explained():
    hooks = _hooks()
    settings = [row for cls in hooks.configs().values() for row in hooks.rows(cls, "config")]
    assert len(settings) > 80
    assert not [name for name, _, _, meaning in settings if not meaning.strip()]


def test_attributes_of_a_docstring():
    text = "Of x.\n\n    Attributes:\n      a, b: of both,\n        and on.\n      c: alone.\n\n    d: not this."
    assert _hooks().attributes(text) == {"a": "of both, and on.", "b": "of both, and on.", "c": "alone."}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_that_are_shown_can_be_given(page):
    defined, configs = _defined(), _hooks().configs().values()
    for program, command in _commands(page):
        module = SCRIPTS[program].partition(":")[0] if program.startswith("cion-") else program
        assert importlib.util.find_spec(module), command
        for name in re.findall(r"(?<=\s)--(?:no)?(config(?:\.\w+)+)", command):
            assert any(_is_setting(cls, name.split(".")[1:]) for cls in configs), f"{name} in: {command}"
        for name in re.findall(r"(?<=\s)--(\w+)", command):
            assert name in defined, f"--{name} in: {command}"

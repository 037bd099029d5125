"""Command lines: overrides, mistakes answered with one message and exit status 2."""

import re
import subprocess
import sys

import pytest
from absl import flags

from cion_jax.common.bounds import between
from cion_jax.common.cli import define_number
from tests.conftest import ROOT

SCRIPT = """
import dataclasses
import errno
from cion_jax.common import cli
from cion_jax.common.errors import UserError
from cion_jax.common.files import read_regular

@dataclasses.dataclass(frozen=True)
class Group:
    steps: int = 3
    size: tuple[int, int] = (256, 128)
    limit: float | None = None

@dataclasses.dataclass(frozen=True)
class Settings:
    seed: int = 0
    train: Group = dataclasses.field(default_factory=Group)

settings = cli.define_config(Settings)

def main(argv):
    print(settings())
    if settings().seed == 13:
        raise UserError("seed 13 brings bad luck")
    if settings().seed == 17:
        read_regular("/dev/zero")
    if settings().seed == 16:
        print("\\udcff.jpg")
    if settings().seed == 14:
        open("a file that is not there")
    if settings().seed == 15:
        raise PermissionError(errno.EACCES, "Permission denied", "a file of somebody else's")

cli.run(main)
"""
CONFIG = """
from cion_jax.common import typed_config
from __main__ import Settings

def get_config():
    return typed_config.thaw(Settings())
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.py").write_text(CONFIG)

    def call(*arguments):
        arguments = [f"--config={tmp_path}/config.py", *arguments]
        return subprocess.run(
            [sys.executable, tmp_path / "script.py", *arguments],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": "."},
        )

    return call


def test_overrides(command):
    done = command(
        "--config.train.steps=7", "--config.train.size=128,64", "--config.train.limit=0.5", "--config.seed=2"
    )
    assert done.returncode == 0, done.stderr
    assert "Settings(seed=2, train=Group(steps=7, size=(128, 64), limit=0.5))" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train.stepz=7"], "no setting config.train.stepz; did you mean 'steps'? Known: steps, size, limit"),
        (["--config.trian.steps=7"], "no setting config.trian; did you mean 'train'?"),
        (["--config.seed.steps=7"], "no setting config.seed.steps"),
        (["--config.train.steps=many"], "flag --config.train.steps=many: invalid literal for int()"),
        (["--config.train.size=1,2,3"], "config.train.size takes 2 values, got 3"),
        (["--config=nowhere.py"], "No such file or directory: 'nowhere.py'"),
        (["--sed=1"], "Unknown command line flag 'sed'"),
        (["stray"], "takes only --flags, got 'stray'"),
        (["--config.seed=13"], "seed 13 brings bad luck"),
        (["--config.seed=17"], "got a device, expected a regular file"),
        (["--config.seed=15"], 'Permission denied: "a file of somebody else\'s"; make room, or give a place'),
    ],
)
def test_a_mistake_is_one_message_and_exit_status_2(command, arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_shows_its_traceback(command):
    """A file that the program misses is no mistake of the user's."""
    ended = command("--config.seed=14")
    assert ended.returncode == 1
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'a file that is not there'" in ended.stderr


def test_help_lists_flags_of_other_modules_too(command):
    """`--config` is defined by `common.cli`, which absl's own --help leaves out."""
    done = command("--help")
    assert done.returncode == 0
    assert "--config: Python file with a get_config() function, or one of adapt," in done.stdout


def test_numbers_on_command_lines_have_two_ends():
    bare = re.compile(r"DEFINE_(integer|float)\(")
    files = [path for half in ("cion_jax", "data_prep") for path in (ROOT / half).rglob("*.py")]
    assert [path.name for path in files if bare.search(path.read_text())] == []


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e30", "x"])
def test_a_number_beyond_its_bounds_is_named_with_them(value):
    values = flags.FlagValues()
    define_number("far", None, "", between(0, 2), whole=False, flag_values=values)
    with pytest.raises(flags.Error, match=r"flag --far.*(must be in \[0, 2\]|invalid literal|could not convert)"):
        values(["x", f"--far={value}"])
    assert values(["x", "--far=1.5"]) == ["x"]


def test_names_that_are_no_text_are_printed(command):
    done = command("--config.seed=16")
    assert done.returncode == 0
    assert done.stdout.endswith("\\udcff.jpg\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no attribute 'get_config'"),
        ("def get_config(:", "SyntaxError: invalid syntax"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def get_config(): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("from cion_jax.common.errors import UserError\ndef get_config(): raise UserError('two')", "error: two\n"),
        ("def get_config(): return {}", "get_config() returned a dict, expected a ConfigDict"),
    ],
)
def test_a_config_file_that_cannot_be_used(command, tmp_path, text, message):
    (tmp_path / "config.py").write_text(text)
    done = command()
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert message in done.stderr

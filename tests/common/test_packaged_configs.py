"""Configs that are found by name, in a checkout and where the project is installed."""

import pytest

from cion_jax.common import cli, packaged_configs, typed_config
from cion_jax.common.typed_config import ConfigError
from cion_jax.tasks.distill.config import Config


def test_every_file_of_the_folder_has_a_name():
    assert {"data_prep", "demo", "finetune/market1501", "market_small", "pretrain", "vit_b"} <= set(
        packaged_configs.names()
    )


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("vit_b", "vit_b.py"),
        ("pretrain:swin_tiny", "pretrain.py:swin_tiny"),
        ("demo:", "demo.py:"),
        ("finetune/msmt17:vit_tiny", "finetune/msmt17.py:vit_tiny"),
    ],
)
def test_a_name_is_a_packaged_file(given, found):
    assert packaged_configs.find(given) == str(packaged_configs.folder() / found)


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    (tmp_path / "vit_b").touch()
    monkeypatch.chdir(tmp_path)
    assert packaged_configs.find("vit_b:x") == "vit_b:x"


def test_a_folder_of_that_name_is_no_file(tmp_path, monkeypatch):
    (tmp_path / "data_prep").mkdir()  # as in a checkout
    monkeypatch.chdir(tmp_path)
    assert packaged_configs.find("data_prep") == str(packaged_configs.folder() / "data_prep.py")


@pytest.mark.parametrize("given", ["vit_b.py", "configs/vit_b", "nowhere.py:x"])
def test_a_path_stays_a_path(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert packaged_configs.find(given) == given


def test_the_nearest_name_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no packaged config 'vitb'; did you mean 'vit_b'"):
        packaged_configs.find("vitb")


def test_an_argument_reaches_the_config():
    config = packaged_configs.load("pretrain", "swin_tiny")
    config.data.path = "somewhere"
    assert typed_config.freeze(Config, config).model.name == "swin_tiny"


@pytest.mark.parametrize(
    "arguments", [["--config=vit_b", "--a=vit_b"], ["-config=vit_b", "--a=vit_b"], ["--config", "vit_b", "--a=vit_b"]]
)
def test_the_flag_takes_a_name_in_every_spelling(arguments, monkeypatch):
    monkeypatch.setitem(cli._schemas, "config", Config)
    *config, other = cli._with_files(arguments)
    assert " ".join(config).replace("=", " ").lstrip("-") == f"config {packaged_configs.folder() / 'vit_b.py'}"
    assert other == "--a=vit_b"


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (None, (), "FileNotFoundError"),
        ("def get_config(:", (), "SyntaxError"),
        ("x = 1", (), "KeyError: 'get_config'"),
        ("def get_config(): return {}", ("a",), "too many positional arguments"),
    ],
)
def test_what_is_no_config_is_told(tmp_path, text, arguments, said):
    if text is not None:
        (tmp_path / "c.py").write_text(text)
    with pytest.raises(ConfigError, match=f"c.py is no config, a Python file with get_config.*{said}"):
        packaged_configs.load(str(tmp_path / "c.py"), *arguments)

"""The configs that come with the project: in `configs/` of a checkout, installed as `cion_jax/configs`."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import Any

from cion_jax.common.typed_config import ConfigError, unknown

_PACKAGE = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Where they lie."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
    """Their names, sorted; one in a folder of its own is `finetune/market1501`."""
    files = (path.relative_to(folder()).with_suffix("") for path in folder().rglob("*.py"))
    return sorted(path.as_posix() for path in files if not path.name.startswith("_"))


def find(given: str) -> str:
    """What `--config=given` means: `vit_b` and `vit_b:argument` name a packaged config where there is no such file.

    Args:
      given: FILE, FILE:ARGUMENT, NAME or NAME:ARGUMENT.

    Returns:
      FILE or FILE:ARGUMENT.

    Raises:
      ConfigError: neither a file nor the name of a packaged config; the nearest one is named.
    """
    name, colon, argument = given.partition(":")
    known = name in names()
    if Path(name).is_file() or name.endswith(".py") or ("/" in name and not known):
        return given
    if not known:
        raise ConfigError(unknown(f"file and no packaged config {name!r}", name, names()))
    return f"{folder() / name}.py{colon}{argument}"


def load(name: str, *arguments: str) -> Any:
    """The settings of a config, to be changed: what its `get_config(*arguments)` returns.

    Raises:
      ConfigError: there is no such file, or it has no such function.
    """
    file = find(name)
    try:
        get_config = runpy.run_path(file)["get_config"]
        inspect.signature(get_config).bind(*arguments)
    except (OSError, SyntaxError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{file} is no config, a Python file with get_config({', '.join(arguments)}): {said}"
        ) from error
    return get_config(*arguments)

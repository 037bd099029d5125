"""Command lines of both halves: absl flags, ml_collections overrides, mistakes as one message. Imports no JAX."""

from __future__ import annotations

import dataclasses
import errno
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from cion_jax.common import typed_config
from cion_jax.common.errors import UserError

MISTAKE = 2  # exit status where nothing could be done
# What a machine refuses, whatever the program does.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def define_config(schema: type, default: str | None = None, unused: Sequence[str] = ()) -> Callable[[], Any]:
    """Defines --config and its overrides --config.a.b=c.

    Args:
      schema: dataclass that the config file's ConfigDict is frozen into; names every setting.
      default: config file to use where the command line gives none.
      unused: dotted names of texts that this command does not need, which may therefore be empty.

    Returns:
      Function that gives the frozen settings once flags are parsed; raises typed.ConfigError.
    """
    holder = config_flags.DEFINE_config_file("config", None, "Python file with a get_config() function.")
    _schemas["config"] = schema
    _defaults["config"] = default

    def settings():
        if holder.value is None:
            raise typed_config.ConfigError("--config is not given; give a config file, e.g. --config=configs/vit_b.py")
        holder.value.update_from_flattened_dict(dict.fromkeys(unused, "unused"))
        return typed_config.freeze(schema, holder.value)

    return settings


def run(
    main: Callable[[Sequence[str]], int | None], leave: Callable[[int], NoReturn] = sys.exit, names: bool = False
) -> None:
    """Parses the flags and runs `main`; never returns.

    A `UserError`, and what a machine refuses (no room, no permission), end with one message on stderr and exit status
    2; any other exception is a bug and shows its traceback.

    Args:
      main: takes what is left of the command line; its result is the exit status (None: 0).
      leave: exits with a status.
      names: the command takes names of files beside flags.
    """
    logging.set_verbosity(logging.WARNING)

    def guarded(call, argv):
        try:
            return call(argv)
        except (UserError, flags.Error) as error:
            print(f"error: {error}", file=sys.stderr)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            print(f"error: {error}; make room, or give a place that this user may use", file=sys.stderr)
        sys.exit(MISTAKE)

    try:
        app.run(
            lambda argv: guarded(main if names else _no_rest(main), argv),
            flags_parser=lambda argv: guarded(_parse, argv),
        )
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)
    except BaseException:
        traceback.print_exc()
        leave(1)


_schemas: dict[str, type] = {}
_defaults: dict[str, str | None] = {}  # not given to the flag, which would read the overrides before they are checked


def _parse(argv: Sequence[str]) -> list[str]:
    for flag, schema in _schemas.items():
        for argument in argv:
            if argument.lstrip("-").startswith(f"{flag}.") and argument.startswith("-"):
                _check_name(schema, argument.lstrip("-").split("=")[0])
    given = {argument.lstrip("-").split("=")[0] for argument in argv[1:]}
    defaults = [f"--{flag}={file}" for flag, file in _defaults.items() if file and flag not in given]
    try:
        return flags.FLAGS([argv[0], *defaults, *argv[1:]])
    except FileNotFoundError as error:  # of a config file
        raise typed_config.ConfigError(f"{error}; give a config file, e.g. --config=configs/vit_b.py") from error


def _check_name(schema: type, path: str) -> None:
    """Raises ConfigError where a dotted override names no setting; ml_collections itself would show a traceback."""
    known: Any = schema
    parts = path.split(".")
    for depth, part in enumerate(parts[1:], 1):
        names = [f.name for f in dataclasses.fields(known)] if dataclasses.is_dataclass(known) else []
        if part not in names:
            raise typed_config.ConfigError(typed_config.unknown(f"setting {'.'.join(parts[: depth + 1])}", part, names))
        known = typing.get_type_hints(known)[part]


def _no_rest(main: Callable) -> Callable:
    def checked(argv: Sequence[str]):
        if len(argv) > 1:
            raise typed_config.ConfigError(f"this command takes only --flags, got {argv[1]!r}; see --help")
        return main(argv)

    return checked

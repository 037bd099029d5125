"""Command lines of both halves: absl flags, ml_collections overrides, mistakes as one message. Imports no JAX."""

from __future__ import annotations

import ast
import dataclasses
import errno
import functools
import io
import json
import sys
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from cion_jax.common import packaged_configs, typed_config
from cion_jax.common.bounds import Bounds
from cion_jax.common.errors import UserError
from cion_jax.common.files import NotRegularError
from cion_jax.common.printable import lines

UNUSED = "unused"  # stands where a command needs no text
MISTAKE = 2  # exit status where nothing could be done
# What a machine refuses, whatever the program does.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
_REFUSALS |= {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}
_NO_MEMORY = "RESOURCE_EXHAUSTED"  # how JAX begins to say it


def define_config(
    schema: type | Mapping[str, type], default: str | None = None, unused: Sequence[str] = ()
) -> Callable[[], Any]:
    """Defines --config and its overrides --config.a.b=c.

    Args:
      schema: dataclass that the config file's ConfigDict is frozen into; names every setting. Several: by the value
        of the setting `task`.
      default: config file, or name of a packaged config, to use where the command line gives none.
      unused: dotted names of texts that this command does not need, which may therefore be empty.

    Returns:
      Function that gives the frozen settings once flags are parsed; raises typed.ConfigError.
    """
    known = ", ".join(packaged_configs.names())
    holder = config_flags.DEFINE_config_file(
        "config", None, f"Python file with a get_config() function, or one of {known}; --config.a.b=c sets a setting."
    )
    _schemas["config"] = [schema] if isinstance(schema, type) else list(schema.values())
    _defaults["config"] = default

    def settings() -> Any:
        if holder.value is None:
            raise typed_config.ConfigError("--config is not given; give a config file or a name, e.g. --config=vit_b")
        try:
            update = getattr(holder.value, "update_from_flattened_dict", None)
            if update is None:
                kind = type(holder.value).__name__
                raise typed_config.ConfigError(f"--config: get_config() returned a {kind}, expected a ConfigDict")
            update({name: UNUSED for name in unused if not _at(holder.value, name)})
        except OSError as error:  # there is no such file, or it fails
            raise typed_config.ConfigError(f"--config: {error}") from error
        return typed_config.freeze(_chosen(schema, holder.value), holder.value)

    return settings


def _at(settings: Any, name: str) -> Any:
    """The setting of a dotted name."""
    return functools.reduce(lambda group, part: group[part], name.split("."), settings)


def define_number(
    name: str,
    default: float | None,
    help: str,
    bounds: Bounds,
    whole: bool = True,
    flag_values: flags.FlagValues | None = None,
) -> Any:
    """Defines a flag that takes a number within bounds (absl's own let NaN pass); what it returns has its `value`."""
    define: Callable = flags.DEFINE_integer if whole else flags.DEFINE_float
    values = flags.FLAGS if flag_values is None else flag_values
    holder = define(name, default, help, flag_values=values)
    flags.register_validator(name, lambda value: value is None or value in bounds, f"must be {bounds}", values)
    return holder


def change(text: str, flag: str) -> tuple[str, Any]:
    """Name and value of a change to a config, "train.steps=3"; the value is read as JSON, else as Python has it, as
    `--config.image.mean=0.5,0.5,0.5` is, and as text where it is neither.

    Raises:
      UserError: there is no "="; `flag` is who gave the text.
    """
    name, is_change, value = text.partition("=")
    if not is_change:
        raise UserError(f"{flag}={text}: expected NAME=VALUE, a setting of the recipe, as in train.steps=100")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, literal(value)


def literal(text: str) -> Any:
    """The number, tuple and so on that a text is in Python; the text itself where it is none: it needs no quotes."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def config_files() -> list[Path]:
    """The files that --config names, to be read and not written."""
    return [Path(file) for name in _schemas if (file := config_flags.get_config_filename(flags.FLAGS[name]))]


def _chosen(schema: type | Mapping[str, type], settings: Mapping[str, Any]) -> type:
    if isinstance(schema, type):
        return schema
    task = settings.get("task", "")
    if task not in schema:
        raise typed_config.ConfigError(typed_config.unknown(f"config.task={task!r}", str(task), schema))
    return schema[task]


def _within(error: Exception) -> Exception:
    """Of an error in a flag, what a config said of its argument, which ml_collections tells with a traceback."""
    found, inner = error, error.__context__ if isinstance(error, flags.Error) else None
    while inner is not None:
        found = inner if isinstance(inner, UserError) else found
        inner = inner.__context__
    return found


def run(
    main: Callable[[Sequence[str]], int | None],
    leave: Callable[[int], NoReturn] = sys.exit,
    ours: Callable[[Sequence[str]], Sequence[str]] = list,
    names: bool = False,
) -> None:
    """Parses the flags and runs `main`; never returns. `--help` shows the docstring of `main`'s module and all flags.

    A `UserError`, and what a machine refuses (no room, no memory, no permission), end with one message on stderr and
    exit status 2; any other exception is a bug and shows its traceback.

    Args:
      main: takes what is left of the command line; its result is the exit status (None: 0).
      leave: exits with a status.
      ours: what of the command line is parsed here, program's name included; raises UserError.
      names: the command takes names of files beside flags.
    """
    _prepare_output()

    def guarded(call: Callable, argv: Sequence[str]) -> Any:
        try:
            return call(argv)
        except (UserError, flags.Error, NotRegularError) as error:
            print(f"error: {lines(_within(error))}", file=sys.stderr)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            print(f"error: {error}; make room, or give a place that this user may use", file=sys.stderr)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not str(error).startswith(_NO_MEMORY):
                raise
            print(f"error: not enough memory: {error}; take a smaller batch, network or input", file=sys.stderr)
        sys.exit(MISTAKE)

    if _HELP.intersection(sys.argv[1:]):
        print(_help(main))
        leave(0)
    try:
        parse = functools.partial(guarded, lambda argv: _parse(ours(argv)))
        app.run(lambda argv: guarded(main if names else _no_rest(main), argv), flags_parser=parse)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)
    except BaseException:
        traceback.print_exc()
        leave(1)


def _prepare_output() -> None:
    """Logs warnings only; names of files, which can be any bytes, do not end what prints them after its work."""
    logging.set_verbosity(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


_HELP = {"--help", "-help", "-h", "--helpshort"}
_schemas: dict[str, list[type]] = {}
_defaults: dict[str, str | None] = {}  # not given to the flag, which would read the overrides before they are checked


def _parse(argv: Sequence[str]) -> list[str]:
    for flag, schemas in _schemas.items():
        for argument in argv:
            if argument.lstrip("-").startswith(f"{flag}.") and argument.startswith("-"):
                _check_name(schemas, argument.lstrip("-").split("=")[0])
    given = {argument.lstrip("-").split("=")[0] for argument in argv[1:]}
    defaults = [f"--{flag}={file}" for flag, file in _defaults.items() if file and flag not in given]
    try:
        return flags.FLAGS([argv[0], *_with_files([*defaults, *argv[1:]])])
    except (flags.Error, UserError, OSError):
        raise
    except Exception as error:  # of the config file, which may do anything
        raise typed_config.ConfigError(_failed(error)) from error


def _failed(error: Exception) -> str:
    """What to say of an error that came up while a config file was read."""
    if isinstance(error, KeyError | AttributeError) and "get_config" not in str(error):
        return f"the config file has no such setting: {error}"  # of another task than the file's
    said = "".join(traceback.format_exception_only(error)).strip()
    return f"the config file cannot be used, it needs a function get_config() that returns settings: {said}"


def _with_files(arguments: Sequence[str]) -> list[str]:
    """The arguments with files in place of the names of packaged configs."""
    found = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.lstrip("-").partition("=")
        if name in _schemas and equals and argument.startswith("-"):
            argument = f"--{name}={packaged_configs.find(value)}"
        elif before.startswith("-") and before.lstrip("-") in _schemas:
            argument = packaged_configs.find(argument)
        found.append(argument)
    return found


def _help(main: Callable) -> str:
    """What a program is for and all its flags; absl's own leaves out what another module defines for it."""
    while isinstance(main, functools.partial):
        main = main.func
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module == sys.argv[0] or module.startswith(("cion_jax.", "data_prep.")):
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module("flags", flag)
    return f"{sys.modules[main.__module__].__doc__}{flags.FLAGS.module_help('flags')}"


def _check_name(schemas: Sequence[type], path: str) -> None:
    """Raises ConfigError where a dotted override names no setting; ml_collections itself would show a traceback."""
    known: list[Any] = list(schemas)
    parts = path.split(".")
    for depth, part in enumerate(parts[1:], 1):
        groups = [group for group in known if dataclasses.is_dataclass(group)]
        names = list(dict.fromkeys(field.name for group in groups for field in dataclasses.fields(group)))
        renamed = {old: new for group in groups for old, new in getattr(group, "RENAMED", {}).items()}
        if part in renamed:
            raise typed_config.ConfigError(f"{'.'.join(parts[: depth + 1])} is called {renamed[part]} now")
        if part not in names:
            raise typed_config.ConfigError(typed_config.unknown(f"setting {'.'.join(parts[: depth + 1])}", part, names))
        hints = [typing.get_type_hints(group) for group in groups]
        known = [hint[part] for hint in hints if part in hint]


def _no_rest(main: Callable) -> Callable:
    def checked(argv: Sequence[str]) -> Any:
        if len(argv) > 1:
            raise typed_config.ConfigError(f"this command takes only --flags, got {argv[1]!r}; see --help")
        return main(argv)

    return checked

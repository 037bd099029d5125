"""ConfigDict <-> frozen dataclasses, with errors that name the nearest right setting. Imports no JAX."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import ml_collections
from ml_collections import config_dict

from cion_jax.common.bounds import Bounds
from cion_jax.common.errors import UserError

T = TypeVar("T")


class ConfigError(UserError):
    """A setting that does not exist, has the wrong type, or contradicts another."""


def freeze(
    cls: type[T],
    settings: Mapping[str, Any] | ml_collections.ConfigDict,
    path: str = "config",
    old_names: bool = False,
) -> T:
    """Builds the dataclass `cls` from nested mappings.

    Args:
      cls: a dataclass whose fields are scalars, tuples or dataclasses; fields without a mapping entry keep their
        defaults. A `validate` method, where there is one, is called last.
      settings: nested mapping.
      path: dotted name of `settings`, for messages.
      old_names: take settings under the names that they once had (a dict `RENAMED` of the dataclass: old -> new), as
        stored files have them; else such a name is refused, with the new one in the message.

    Raises:
      ConfigError: an unknown name (the nearest right one is named) or a value of the wrong type.
    """
    if isinstance(settings, ml_collections.ConfigDict):
        settings = settings.to_dict()
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    renamed = getattr(cls, "RENAMED", {})
    if old_names:
        settings = {renamed.get(name, name): value for name, value in settings.items()}
    for name in settings:
        if name in renamed:
            raise ConfigError(f"{path}.{name} is called {path}.{renamed[name]} now")
        if name not in names:
            raise ConfigError(unknown(f"{path}.{name}", name, names))
    built = {n: _value(hints[n], settings[n], f"{path}.{n}", old_names) for n in names if n in settings}
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in built and _required(f)]  # type: ignore
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is not set; give it as --{path}.{missing[0]}=...")
    try:
        result = cls(**built)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if hasattr(result, "validate"):
        result.validate()
    return result


def thaw(settings: Any) -> ml_collections.ConfigDict:
    """The inverse of `freeze`: every setting of a dataclass as a ConfigDict, to be changed in a config file."""
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(type(settings))
    for name in (field.name for field in dataclasses.fields(settings)):
        value, hint = getattr(settings, name), hints[name]
        if dataclasses.is_dataclass(value):
            value = thaw(value)
        elif value is None:
            value = config_dict.placeholder(next(a for a in typing.get_args(hint) if a is not type(None)))
        elif float in (hint, *typing.get_args(hint)) and isinstance(value, int):
            value = float(value)  # or an override could not be a fraction
        values[name] = value
    return ml_collections.ConfigDict(values)


def unknown(what: str, name: str, known: typing.Iterable[str]) -> str:
    """Message for a name that is not among the known ones, with the nearest of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"; did you mean {near[0]!r}? Known: {', '.join(known)}" if near else ""
    return f"there is no {what}{hint}"


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, path: str, old_names: bool = False) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _bounded(_value(args[0], value, path, old_names), args[1], path)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is a group of settings, got {value!r}; set one as --{path}.NAME=...")
        return freeze(typing.cast(type, hint), value, path, old_names)
    if origin is types.UnionType:
        return None if value is None else _value(next(a for a in args if a is not type(None)), value, path, old_names)
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(unknown(f"{path}={value!r}", str(value), map(str, args)))
        return value
    if origin is tuple:
        return _tuple(args, value, path)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(float(value), path)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path} takes {_name(hint)}, got {value!r} ({type(value).__name__})")
    return value


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise ConfigError(f"{path} takes a finite number, got {value}")
    return value


def _bounded(value: Any, bounds: Bounds, path: str) -> Any:
    for number in _numbers(value):
        if number not in bounds:
            raise ConfigError(f"{path} must be {bounds}, got {value!r}")
    return value


def _numbers(value: Any) -> Iterator[float]:
    """The numbers of a value, of tuples all of them."""
    if isinstance(value, tuple):
        for one in value:
            yield from _numbers(one)
    elif value is not None:
        yield value


def _tuple(args: tuple, value: Any, path: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path} takes a tuple, got {value!r} ({type(value).__name__})")
    hints = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(hints) != len(value):
        raise ConfigError(f"{path} takes {len(hints)} values, got {len(value)}: {value!r}")
    return tuple(_value(h, v, f"{path}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))


def _name(hint: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))

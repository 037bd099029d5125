"""Every number that can be set has a range, and what is outside of it is refused before anything starts."""

import dataclasses
import math
import types
import typing

import pytest

from cion_jax.common.bounds import Bounds, between, positive
from cion_jax.common.typed_config import ConfigError, freeze
from cion_jax.data.crops import CropSpec
from cion_jax.tasks import schemas
from data_prep.config import Config

SCHEMAS = schemas() | {"data_prep": Config, "crops": CropSpec}


def plain(hint):
    """A hint without Annotated and None."""
    if typing.get_origin(hint) is typing.Annotated:
        return plain(typing.get_args(hint)[0])
    if typing.get_origin(hint) is types.UnionType:
        return plain(next(a for a in typing.get_args(hint) if a is not type(None)))
    return hint


def number(hint):
    """int or float where a hint is of numbers, or of tuples of them."""
    hint = plain(hint)
    if typing.get_origin(hint) is tuple:
        return number(typing.get_args(hint)[0])
    return hint if hint in (int, float) else None


def filled(hint, value):
    """A value of the hint's form that is `value` everywhere."""
    hint = plain(hint)
    if typing.get_origin(hint) is not tuple:
        return value
    return tuple(filled(a, value) for a in typing.get_args(hint) if a is not Ellipsis)


def numbers(schema, path=()):
    """(path, hint) of everything in a schema that is a number."""
    hints = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from numbers(hint, (*path, field.name))
        elif number(hint):
            yield (*path, field.name), hint


ALL = [pytest.param(s, p, h, id=f"{n}.{'.'.join(p)}") for n, s in SCHEMAS.items() for p, h in numbers(s)]


def outside(bounds, kind):
    """The nearest values that are out of a range."""
    if kind is int:
        return bounds.low - (not bounds.open_low), bounds.high + (not bounds.open_high)
    low = bounds.low if bounds.open_low else math.nextafter(bounds.low, -math.inf)
    return low, bounds.high if bounds.open_high else math.nextafter(bounds.high, math.inf)


@pytest.mark.parametrize(("schema", "path", "hint"), ALL)
def test_every_number_has_two_ends(schema, path, hint):
    assert typing.get_origin(hint) is typing.Annotated, "has no bounds"
    bounds = typing.get_args(hint)[1]
    assert math.isfinite(bounds.low)
    assert math.isfinite(bounds.high)
    for value in outside(bounds, number(hint)):
        settings = filled(hint, value)
        for name in reversed(path):
            settings = {name: settings}
        with pytest.raises(ConfigError, match=f"config.{'.'.join(path)} must be in "):
            freeze(schema, settings)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_everywhere(value):
    for schema, path, hint in (p.values for p in ALL if number(p.values[2]) is float):
        settings = filled(hint, value)
        for name in reversed(path):
            settings = {name: settings}
        with pytest.raises(ConfigError, match=f"config.{'.'.join(path)}.* takes a finite number"):
            freeze(schema, settings)


def test_ends():
    assert 0 in between(0, 1)
    assert 0 not in positive(1)
    assert 1 not in Bounds(0, 1, open_high=True)
    assert [str(b) for b in (between(0, 1), positive(2**24), Bounds(0, 1, open_high=True))] == [
        "in [0, 1]",
        "in (0, 16777216]",
        "in [0, 1)",
    ]

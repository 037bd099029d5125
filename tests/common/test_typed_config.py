"""Settings: frozen with types checked, mistakes answered with the nearest right name."""

import dataclasses
from typing import Literal

import pytest

from cion_jax.common import typed_config


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    size: tuple[int, int] = (4, 2)
    mode: Literal["fast", "exact"] = "fast"
    limit: float | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int = 3
    flag: bool = False
    pairs: tuple[tuple[int, int], ...] = ((0, 1),)
    inner: Inner = dataclasses.field(default_factory=Inner)

    def validate(self):
        if self.steps < 0:
            raise typed_config.ConfigError("steps must not be negative")


def test_values_are_taken_over_and_the_rest_keeps_its_default():
    frozen = typed_config.freeze(Outer, {"steps": 7, "pairs": [(0, 2), (3, 4)], "inner": {"rate": 1, "limit": 2}})
    assert frozen == Outer(steps=7, pairs=((0, 2), (3, 4)), inner=Inner(rate=1.0, limit=2.0))
    assert isinstance(frozen.inner.rate, float)


def test_thaw_is_the_inverse_of_freeze():
    settings = Outer(steps=9, inner=Inner(limit=0.25))
    assert typed_config.freeze(Outer, typed_config.thaw(settings)) == settings
    thawed = typed_config.thaw(Outer())
    thawed.inner.limit = 0.75  # a setting without value can be given one
    assert typed_config.freeze(Outer, thawed).inner.limit == 0.75
    whole = typed_config.thaw(Outer(inner=Inner(rate=2, limit=3)))
    # A fraction in the place of a whole number.
    whole.update_from_flattened_dict({"inner.rate": 0.5, "inner.limit": 2.5})
    assert (whole.inner.rate, whole.inner.limit) == (0.5, 2.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 1}, r"no config.stepz; did you mean 'steps'"),
        ({"inner": {"rat": 1}}, r"no config.inner.rat; did you mean 'rate'"),
        ({"steps": 1.5}, r"config.steps takes a whole number, got 1.5"),
        ({"steps": True}, r"config.steps takes a whole number, got True"),
        ({"flag": 1}, r"config.flag takes true or false, got 1"),
        ({"inner": 3}, r"config.inner is a group of settings"),
        ({"inner": {"size": (1, 2, 3)}}, r"config.inner.size takes 2 values, got 3"),
        ({"inner": {"size": (1, "a")}}, r"config.inner.size\[1\] takes a whole number, got 'a'"),
        ({"inner": {"mode": "exakt"}}, r"did you mean 'exact'"),
        ({"steps": -1}, r"must not be negative"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(typed_config.ConfigError, match=message):
        typed_config.freeze(Outer, settings)

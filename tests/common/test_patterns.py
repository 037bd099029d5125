"""Expressions of users: bounded in time, and refused in words."""

import time

import pytest

from cion_jax.common.errors import UserError
from cion_jax.common.patterns import check_patterns, compiled, matches_one


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "a*a*a*a*a*a*a*a*a*b", "(.*)*(.*)*b"])
def test_none_takes_longer_than_its_text(pattern):
    began = time.monotonic()
    assert not matches_one([compiled(pattern, "--ignore")], "a" * 10_000)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("pattern", ["(", "(?!a)b", r"(a)\1", "((a{1000}){1000}){1000}", "a{100000}", "\ud800"])
def test_what_cannot_be_used_is_refused(pattern):
    with pytest.raises(UserError, match=r"--ignore=.* is no regular expression that can be used"):
        check_patterns(["fc.*", pattern], "--ignore")


def test_the_whole_name_is_matched():
    ignore = [compiled(pattern, "--ignore") for pattern in (r"fc\..*", "head")]
    assert matches_one(ignore, "fc.weight")
    assert not matches_one(ignore, "x.fc.weight")
    assert not matches_one(ignore, "heads")
    assert matches_one(ignore, "fc.\ud800")

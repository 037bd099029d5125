"""Packages that only some installations have: the extras of pyproject.toml."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cion_jax.common.errors import UserError


class MissingPackageError(UserError):
    """What was asked for needs packages that are not installed."""


@contextlib.contextmanager
def needed(what: str, extra: str) -> Iterator[None]:
    """In here the packages of an extra are imported.

    Args:
      what: needs them, as its user knows it: a command, a flag.
      extra: the name in pyproject.toml that they are installed by.

    Raises:
      MissingPackageError: one of them is not installed, or does not load.
    """
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(f"{what} needs more packages ({error}); pip install 'cion-jax[{extra}]'") from error

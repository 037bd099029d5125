"""Things by name, open to other packages: backbones, benchmarks, sources, feature extractors, export formats."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Generic, TypeVar

from cion_jax.common.typed_config import ConfigError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names and what they stand for.

    A module registers what it defines when it is imported. The modules of `package` are imported when a name is looked
    up for the first time, and so are the entry points of `group` of every installed package: a package adds to the
    registry by `[project.entry-points."cion_jax.GROUP"]` in its pyproject.toml, `NAME = "module:thing"`. Threads may
    look names up at the same time.
    """

    def __init__(self, what: str, package: str, group: str):
        """Of `what` (for messages): the modules of `package`, or that module, and entry points `cion_jax.{group}`."""
        self.what, self._package, self._group = what, package, f"cion_jax.{group}"
        self._found: dict[str, T] = {}
        self._places: dict[str, str] = {}
        self._imported = False
        self._lock = threading.RLock()  # what is imported may look names up itself

    def register(self, name: str, thing: T) -> None:
        """Adds a thing under a name.

        Raises:
          ValueError: the name stands for another thing already.
        """
        if self._found.setdefault(name, thing) is not thing:
            raise ValueError(f"there are two of {self.what} {name!r}: {self._found[name]!r} and {thing!r}")

    def register_all(self, things: Mapping[str, T]) -> None:
        """`register` of many."""
        for name, thing in things.items():
            self.register(name, thing)

    @contextlib.contextmanager
    def with_one_more(self, name: str, thing: T) -> Iterator[None]:
        """`register` for a while."""
        self.register(name, thing)
        try:
            yield
        finally:
            del self._found[name]

    def register_lazily(self, name: str, place: str) -> None:
        """Adds what `module:attribute` names; the module is imported when the name is looked up."""
        self._places[name] = place

    def add(self, name: str) -> Callable[[T], T]:
        """`register` as a decorator."""

        def decorate(thing: T) -> T:
            self.register(name, thing)
            return thing

        return decorate

    def names(self) -> list[str]:
        """All names, sorted."""
        self._import()
        return sorted(self._found.keys() | self._places.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> T:
        """What a name stands for; ConfigError names the nearest one where it stands for nothing."""
        self._import()
        with self._lock:
            if name in self._places:
                module, _, attribute = self._places.pop(name).partition(":")
                self.register(name, getattr(importlib.import_module(module), attribute))
        if name not in self._found:
            raise ConfigError(unknown(f"{self.what} {name!r}", name, self.names()))
        return self._found[name]

    def _import(self) -> None:
        with self._lock:
            if self._imported:
                return
            self._imported = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self._package}.{module.name}")
            for point in metadata.entry_points(group=self._group):
                self.register(point.name, point.load())

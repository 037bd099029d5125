"""Input formats: `open(name, root, **options)` gives a `data_prep.types.Source`.

A further one is a class that is built from the root folder and registers itself in `REGISTRY`; another package's
comes in through the entry point group `cion_jax.sources`.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from cion_jax.common.registry import Registry
from cion_jax.common.typed_config import unknown
from data_prep.config import Config
from data_prep.types import Source, SourceError

REGISTRY: Registry[type[Source]] = Registry("source", "data_prep.sources", "sources")


def options(name: str, config: Config) -> dict[str, Any]:
    """What a run's settings say to a source, as `open` takes it."""
    found: dict[str, Any] = {} if config.tracks is None else {"tracks": config.tracks}
    settings = {"mot": config.mot, "annotations": config.annotations}
    return found | ({"settings": settings[name]} if name in settings else {})


def open(name: str, root: str | Path, **options: Any) -> Source:
    """Opens an input folder.

    Args:
      name: one of `REGISTRY`.
      root: the input folder (for `annotations` also the JSON file).
      **options: of the format: `mot` takes `tracks`, the path of the track text within a sequence.

    Raises:
      SourceError: an unknown format or option (the nearest right one is named), no such folder, or nothing
        in it that the format can read.
    """
    if name not in REGISTRY:
        raise SourceError(unknown(f"source {name!r}", name, REGISTRY))
    known = list(inspect.signature(REGISTRY[name]).parameters)[1:]
    for option in options:
        if option not in known:
            takes = (
                unknown(f"option {option!r} of source {name!r}", option, known)
                if known
                else (f"source {name!r} takes no options, got {option!r}")
            )
            raise SourceError(takes)
    if not Path(root).exists():
        raise SourceError(f"no such input: {root}; expected a folder that source {name!r} can read")
    return REGISTRY[name](Path(root), **options)  # type: ignore[call-arg]


def layout(name: str) -> str:
    """What a source's input looks like, for people."""
    return getattr(REGISTRY[name], "layout", f"what source {name!r} reads")

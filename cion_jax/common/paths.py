"""Names of the leaves of nested dicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def path_name(path: Sequence[Any]) -> str:
    """`backbone/blocks/0/attn/qkv/kernel` of a tree path, as `jax.tree_util` gives it."""
    return "/".join(str(_key(part)) for part in path)


def _key(part: Any) -> Any:
    """What is between the brackets: a key of a dict, an attribute's name, an index."""
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return getattr(part, attribute)
    return part

"""Names of the leaves of nested dicts; paths that flags name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cion_jax.common.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # with one slash where it was a `Path` before


def path_name(path: Sequence[Any]) -> str:
    """`backbone/blocks/0/attn/qkv/kernel` of a tree path, as `jax.tree_util` gives it."""
    return "/".join(str(_key(part)) for part in path)


def _key(part: Any) -> Any:
    """What is between the brackets: a key of a dict, an attribute's name, an index."""
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return getattr(part, attribute)
    return part


def local_path(given: str, flag: str) -> Path:
    """The local file or folder that a flag names; `~` is the user's home.

    Args:
      given: as typed.
      flag: its name, for the message.

    Raises:
      UserError: a URL, which would otherwise become a folder of that name here.
    """
    if _URL.match(given):
        raise UserError(
            f"{flag}={given} is a URL, expected a path on this machine; copy it here (gcloud storage cp -r, aws s3 "
            "sync), or mount the bucket (gcsfuse, mount-s3) and give the path below the mount"
        )
    try:
        return Path(given).expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise UserError(f"{flag}={given}: {error}; write the path out") from error

"""Weights on the Hugging Face Hub: `hf://ORG/NAME[@REVISION]`, and one file of it, `hf://ORG/NAME/FILE`.

Downloads lie in that library's cache; HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and HF_HOME work as everywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

from cion_jax.common.errors import UserError
from cion_jax.common.extras import needed
from cion_jax.common.printable import printable
from cion_jax.weights.folder import REID, TIMM_CONFIG, WEIGHTS

PREFIX = "hf://"
_SPEC = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")


class HubError(UserError):
    """The Hub does not give or take what was asked for."""


def fetched(spec: str) -> Path:
    """A folder of weights on this machine, or a file, downloaded if it is not here yet.

    Args:
      spec: `hf://ORG/NAME[@REVISION]` or `hf://ORG/NAME[@REVISION]/FILE`.

    Raises:
      HubError: another spelling, no such repository or file, or no connection.
      MissingPackageError: `huggingface_hub` is not installed.
    """
    repository, revision, file = _parsed(spec)
    hub = _hub(spec)
    try:
        if file:
            return Path(hub.hf_hub_download(repository, file, revision=revision))
        kept = [WEIGHTS, REID, TIMM_CONFIG]
        folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=kept))
    except Exception as error:  # the library's, its HTTP client's and the machine's have no common base
        raise HubError(f"{spec} cannot be fetched: {_said(error)}") from error
    if not (folder / WEIGHTS).is_file():
        raise HubError(f"{spec} has no {WEIGHTS}; name a file of it: file:NAME={PREFIX}{repository}/FILE")
    return folder


def push(folder: Path, target: str) -> str:
    """Uploads a folder to a repository, which is made where there is none; returns its address.

    Raises:
      HubError: another spelling, or the Hub refuses it.
      MissingPackageError: `huggingface_hub` is not installed.
    """
    repository = repository_of(target)
    hub = _hub(f"--push={target}")
    try:
        client = hub.HfApi()
        client.create_repo(repository, exist_ok=True)
        done = client.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload a ReID model")
    except Exception as error:  # as in `fetched`
        raise HubError(f"{target} cannot be pushed: {_said(error)}; the folder is in {folder}") from error
    return str(getattr(done, "repo_url", done))


def repository_of(target: str) -> str:
    """`ORG/NAME` of what --push names; raises HubError for another spelling."""
    repository, revision, file = _parsed(target)
    if revision or file:
        raise HubError(f"--push={target} must be {PREFIX}ORG/NAME, without a revision and a file")
    return repository


def check(target: str) -> None:
    """Raises what `push` would, as far as it can be known before there is anything to push."""
    repository_of(target)
    _hub(f"--push={target}")


def _parsed(spec: str) -> tuple[str, str | None, str | None]:
    match = _SPEC.fullmatch(spec)
    if not match:
        raise HubError(f"{spec} is no address on the Hub; expected {PREFIX}ORG/NAME, /FILE behind it for one file")
    return match["repository"], match["revision"], match["file"]


def _hub(what: str) -> ModuleType:
    with needed(what, "hub"):
        import huggingface_hub
    return huggingface_hub


def _said(error: Exception) -> str:
    """The first line: the library's messages go on for many."""
    return f"{type(error).__name__}: {printable(str(error).strip().partition(chr(10))[0], 300)}"

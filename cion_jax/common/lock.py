"""One process at a time in a folder, on a file system that hosts share, too. Imports no JAX.

The lock is a file with the host, the process and when it started. On the same host the system knows whether that
process lives; on another one the file's time does, which its owner renews as long as it lives. What a killed process
left behind is taken over, and said.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cion_jax.common.errors import UserError

BEAT = 10.0  # seconds between two renewals
DEAD = 60.0  # seconds without one after which a process on another host is gone


class InUseError(UserError):
    """Another process works in the folder."""


@contextlib.contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Keeps others out of a folder that exists.

    Args:
      folder: where the lock's file lies, `.lock`.
      what: that works there, for the message of whoever comes second.

    Raises:
      InUseError: a process that lives holds it; host and process are named.
    """
    path = folder / ".lock"
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid()), "what": what}
    _take(path, mine)
    over = threading.Event()
    beats = threading.Thread(target=_renew, args=(path, over), name="lock", daemon=True)
    beats.start()
    try:
        yield
    finally:
        over.set()
        beats.join()
        path.unlink(missing_ok=True)


def _take(path: Path, mine: dict[str, Any]) -> None:
    while True:
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            with os.fdopen(file, "w") as opened:
                opened.write(json.dumps(mine) + "\n")
            return
        owner = _owner(path)
        if owner is None:
            continue
        if _lives(path, owner):
            raise InUseError(
                f"{path.parent} is in use by {owner['what']}, process {owner['pid']} on {owner['host']}; wait until it "
                f"ends, stop it, or give another folder (if it does not exist any more, delete {path})"
            )
        _remove(path)
        print(f"{path}: process {owner['pid']} on {owner['host']} is gone, going on in its place", file=sys.stderr)


def _owner(path: Path) -> dict[str, Any] | None:
    """Who holds it; None where it has just been let go. What cannot be read belongs to nobody."""
    try:
        found = json.loads(path.read_text())
        return {name: found[name] for name in ("host", "pid", "born", "what")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return {"host": "an unknown host", "pid": 0, "born": "", "what": "an unknown process"}


def _lives(path: Path, owner: dict[str, Any]) -> bool:
    if owner["host"] == socket.gethostname() and isinstance(owner["pid"], int) and owner["pid"] > 0:
        return _born(owner["pid"]) == owner["born"] is not None
    return abs(_age(path)) < DEAD  # one in the future was not renewed since a clock was set back


def _age(path: Path) -> float:
    """Seconds since the file was renewed, by the clock of its file system."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return DEAD
    finally:
        probe.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """Of several that find it abandoned one alone succeeds."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        aside.unlink()


def _born(pid: int) -> str | None:
    """When a process of this machine started, as text that no other process with its number has; None: no such."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _renew(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)

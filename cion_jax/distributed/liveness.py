"""Who of a run's processes is still there: one TCP connection from each to process 0. Imports no JAX.

A process that dies takes its connections with it, so the others know at once and can say who it was; the kernel's
keepalive tells of a machine that went silent. JAX's own heartbeat ends a run too, but aborts without naming a host.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

LOST = 76  # exit status where another process is gone
DONE = "done"
GRACE = 5.0  # seconds in which a process may come to its own end after another one is gone
_CONNECT = 60.0  # seconds


def listen() -> socket.socket:
    """Process 0's door; `getsockname()[1]` is its port."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, dualstack_ipv6=both, backlog=1024)


class RollCall:
    """Ends this process with status LOST and a message that names the process that is gone.

    Attributes:
      gone: what became of it; None while all are there.
    """

    def __init__(self, process: int, names: Sequence[str], address: tuple[str, int], door: socket.socket | None):
        """Connects; returns when all have.

        Args:
          process: number of this one.
          names: hosts of all processes.
          address: where process 0 can be reached.
          door: process 0's, from `listen`; None in the others.

        Raises:
          OSError: process 0 cannot be reached, or some process did not come.
        """
        self.gone: str | None = None
        self._names, self._process = names, process
        self._heard, self._failed = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._others = _answer(door, len(names) - 1) if door else {_call(address, process): 0}
        _postpone_aborts()
        threading.Thread(target=self._watch, name="roll call", daemon=True).start()

    def finish(self) -> None:
        """This process is done: from now on nobody misses it."""
        self._tell(DONE)

    def fail(self, reason: str) -> None:
        """This process has to leave: tells the others why."""
        self._failed.set()
        self._tell(f"{self._name(self._process)} stopped: {' '.join(reason.split())}"[:2000])

    def blame(self) -> str | None:
        """Whether something that went wrong here comes from a process that is gone: what became of it, or None."""
        self._heard.wait(GRACE)
        return self.gone

    def _name(self, process: int) -> str:
        return f"process {process} ({self._names[process]})"

    def _tell(self, word: str) -> None:
        with self._lock:
            for connection in self._others:
                try:
                    connection.sendall(word.encode())
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # gone itself

    def _watch(self) -> None:
        """Waits for the last word of every other process; ends this one where it is anything but DONE."""
        with selectors.DefaultSelector() as selector:
            for connection, process in self._others.items():
                selector.register(connection, selectors.EVENT_READ, process)
            while selector.get_map():
                for key, _ in selector.select():
                    word = _hear(key.fileobj)
                    selector.unregister(key.fileobj)
                    if word != DONE and not self._failed.is_set():
                        gone = self._name(key.data)
                        return self._end(word or f"{gone} is gone without a word; look at its log and its machine")

    def _end(self, gone: str) -> None:
        self.gone = gone
        self._heard.set()
        self._tell(gone)
        if not self._failed.wait(GRACE):
            leave_without(gone)


def leave_without(gone: str) -> None:
    """Ends this process, whatever it is doing."""
    print(
        f"error: {gone}. This process leaves with it; checkpoints are in order: start all processes again to go on",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST)


def _postpone_aborts() -> None:
    """Gives the roll call six seconds to speak when JAX aborts because the coordinator is gone.

    JAX's client calls abort() in a thread of its own, out of Python's reach. The handler is C's sleep itself: called
    with the signal's number, SIGABRT = 6, it holds that one thread for six seconds; then the abort goes on.
    """
    libc = ctypes.CDLL(None)
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _call(address: tuple[str, int], process: int) -> socket.socket:
    connection = socket.create_connection(address, timeout=_CONNECT)
    connection.settimeout(None)
    _keep_alive(connection)
    connection.sendall(process.to_bytes(4, "big"))
    return connection


def _answer(door: socket.socket, count: int) -> dict[socket.socket, int]:
    """The connections of `count` processes -> their numbers."""
    others: dict[socket.socket, int] = {}
    door.settimeout(_CONNECT)
    with door:
        while len(others) < count:
            connection, _ = door.accept()
            connection.settimeout(_CONNECT)
            number = connection.recv(4, socket.MSG_WAITALL)
            connection.settimeout(None)
            _keep_alive(connection)
            others[connection] = int.from_bytes(number, "big")
    return others


def _keep_alive(connection: socket.socket) -> None:
    """A silent machine is given up after 10 + 3 * 5 seconds."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _hear(connection: Any) -> str:
    """Everything that the other side says before it closes; empty where it just breaks off."""
    said = b""
    try:
        while part := connection.recv(4096):
            said += part
    except OSError:
        return ""
    return said.decode(errors="replace")

"""SIGTERM and SIGINT as a request to save and leave. Imports no JAX."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import Self

LEFT = 75  # exit status (EX_TEMPFAIL): asked to leave; the same command goes on
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Notes the first SIGTERM or SIGINT; a second one, or `grace` seconds, end the process on the spot.

    A thread of its own hears of signals through a socket, so that they are heard while the main thread compiles.

    Attributes:
      asked: whether one came.
    """

    def __init__(self, grace: float):
        self.asked = False
        self._grace = grace
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._mouth.close()
        self._thread.join()
        self._ear.close()

    def _listen(self) -> None:
        name = self._next()
        if name is None:
            return
        self.asked = True
        print(f"{name}: saving after this step, to leave within {self._grace:g} s", file=sys.stderr, flush=True)
        self._ear.settimeout(self._grace)
        try:
            again = self._next()
            if again is None:
                return
        except TimeoutError:
            again = f"{self._grace:g} s are over"
        print(f"{again}: leaving at once with what is saved; the same command goes on", file=sys.stderr, flush=True)
        os._exit(LEFT)

    def _next(self) -> str | None:
        """Name of the next signal of ours; None when the run is over."""
        while heard := self._ear.recv(1):
            if heard[0] in _SIGNALS:
                return signal.Signals(heard[0]).name
        return None

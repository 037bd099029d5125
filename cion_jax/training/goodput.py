"""Where the time of a run goes, over all its restarts: `goodput.json`.

Goodput is the share of the time that went into steps which the run still has: not into starting, compiling, waiting for
data, saving, evaluating, nor into steps that were done after the last checkpoint before the run was killed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cion_jax.common.files import finished, read_regular
from cion_jax.common.progress import duration

FILE = "goodput.json"
# Seconds of a process, by what it does; "lost" is what had to be done again after a restart.
KINDS = ("steps", "compiling", "waiting", "saving", "evaluating", "between epochs", "starting", "lost")
DOWN = "down"  # between a run's last word and its next start: not the run's time, so no part of the goodput
HEARTBEAT = 1.0  # seconds between two writes; what a killed process did since its last counts as down
_KEPT = 64  # checkpoints that are remembered

Seconds = dict[str, float]


class Goodput:
    """The clock of a run. Process 0 alone writes; it starts in "starting"."""

    def __init__(self, workdir: Path, writes: bool = True, clock: Callable[[], float] = time.time):
        """A clock that has not been told yet from which checkpoint the run goes on; see `resume`."""
        self._path, self._writes, self._clock = workdir / FILE, writes, clock
        self.seconds: Seconds = dict.fromkeys((*KINDS, DOWN), 0.0)
        self._checkpoints: dict[int, Seconds] = {}
        self._restarts = 0
        self._kind, self._since, self._written = "starting", clock(), 0.0
        self._saved = self._since

    def resume(self, step: int) -> None:
        """Takes over the times of the runs before this one, which goes on from the checkpoint of `step`.

        What was spent after that checkpoint is lost. A file that is damaged begins anew.
        """
        before = _read(self._path)
        if before is None:
            return
        whole: Seconds = dict.fromkeys((*KINDS, DOWN), 0.0) | before["seconds"]
        known = {int(number): seconds for number, seconds in before["checkpoints"].items() if int(number) <= step}
        kept = known[max(known)] if known and step else {}
        for kind in KINDS:
            if kind != "lost":
                self.seconds[kind] += kept.get(kind, 0.0)
                self.seconds["lost"] += whole[kind] - kept.get(kind, 0.0)
        self.seconds["lost"] += whole["lost"]
        self.seconds[DOWN] = whole[DOWN] + max(self._since - before["written"], 0.0)
        self._checkpoints, self._restarts = known, before["restarts"] + 1

    def enter(self, kind: str) -> None:
        """From now on the process does this."""
        now = self._clock()
        self.seconds[self._kind] += now - self._since
        self._kind, self._since = kind, now

    @contextlib.contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """The process does this in here."""
        before = self._kind
        self.enter(kind)
        try:
            yield
        finally:
            self.enter(before)

    def saved(self, step: int) -> None:
        """A checkpoint of `step` is being written: what was spent until now is not lost with what follows."""
        self.enter(self._kind)
        kept = {**self._checkpoints, step: {kind: self.seconds[kind] for kind in KINDS if kind != "lost"}}
        self._checkpoints = {number: kept[number] for number in sorted(kept)[-_KEPT:]}
        self._saved = self._since
        self.write()

    def since_saved(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return self._clock() - self._saved

    def beat(self) -> None:
        """Writes the times where that was not done within the last second."""
        if self._clock() - self._written >= HEARTBEAT:
            self.write()

    def write(self) -> None:
        """Writes the times; where that fails the run goes on, as nothing but them is lost."""
        self.enter(self._kind)
        self._written = self._since
        if not self._writes:
            return
        found = {
            "goodput": share(self.seconds),
            "seconds": self.seconds,
            "restarts": self._restarts,
            "written": self._written,
            "checkpoints": self._checkpoints,
        }
        with contextlib.suppress(OSError), finished(self._path) as part:
            part.write_text(json.dumps(found, indent=1) + "\n")


def share(seconds: Seconds) -> float:
    """Of the time of all processes of a run, one after another, what went into steps that it has; 0 .. 1."""
    whole = sum(seconds.get(kind, 0.0) for kind in KINDS)
    return seconds.get("steps", 0.0) / whole if whole else 0.0


def describe(workdir: Path) -> str:
    """One line about the times of a run; empty where it has none."""
    found = _read(workdir / FILE)
    if found is None:
        return ""
    seconds: Seconds = found["seconds"]
    whole = sum(seconds.get(kind, 0.0) for kind in KINDS)
    rest = [f"{kind} {seconds[kind] / whole:.0%}" for kind in KINDS[1:] if seconds.get(kind, 0.0) > 0.005 * whole]
    restarts = f", {found['restarts']} restarts" if found["restarts"] else ""
    return f"goodput {share(seconds):.0%} of {duration(whole)}{restarts}" + "".join(f", {part}" for part in rest)


def _read(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where there is none, or one that is damaged."""
    try:
        found = json.loads(read_regular(path))
        numbers = [found["written"], found["restarts"], *found["seconds"].values()]
        numbers += [value for seconds in found["checkpoints"].values() for value in seconds.values()]
        numbers += [int(step) for step in found["checkpoints"]]
        return found if all(type(number) in (int, float) for number in numbers) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None

"""What every benchmark prints first, and how it measures."""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from absl import flags

ROOT = Path(__file__).resolve().parent.parent


def header(title: str) -> None:
    """Prints the title, the hardware and the commit, without which a number means nothing."""
    print(f"# {title}")
    print(f"hardware: {processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB")
    print(f"commit: {commit()}")


def define_names(flag: str, names: Sequence[str], default: Sequence[str] | None, about: str) -> flags.FlagHolder:
    """Defines a flag of some names, commas between; what is none of them is refused when flags are read."""
    holder = flags.DEFINE_list(flag, default and list(default), f"{about} Of {', '.join(names)}.")

    def known(given: list[str] | None) -> bool:
        if unknown := [name for name in given or () if name not in names]:
            raise flags.ValidationError(f"{', '.join(unknown)}: no such name; there are {', '.join(names)}")
        return True

    flags.register_validator(flag, known)
    return holder


def accelerator() -> str:
    """Name and number of the devices that JAX sees."""
    import jax

    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def median_seconds(
    run: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median duration of `run`, after one call that is not counted.

    Args:
      clock: `time.process_time` counts processor time instead, on a machine that others use as well.
    """
    run()
    return statistics.median(_seconds(run, clock) for _ in range(repeats))


def table(columns: list[str], rows: Iterable[tuple]) -> None:
    """Prints a Markdown table, every row as it comes."""
    for row in itertools.chain((columns, ["---"] * len(columns)), rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    begin = clock()
    run()
    return clock() - begin


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def card() -> str:
    """Name, driver and memory of NVIDIA's cards; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return "; ".join(subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip().splitlines())
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def commit() -> str:
    """The commit at hand, and whether it is all of it; of a tree without git, what CION_COMMIT says."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    dirty = " with local changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short", "HEAD") or os.environ.get("CION_COMMIT", "unknown")) + dirty

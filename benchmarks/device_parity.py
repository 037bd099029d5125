"""Whether a device computes what a CPU does: `python -m benchmarks.device_parity [--models=vit_base,volo_d1]`.

    python -m benchmarks.device_parity --minutes=9 --json=FILE              # on an accelerator: every backbone
    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python -m benchmarks.device_parity

On an accelerator the reference is one CPU device, and processes compare cases side by side, on a GPU as many as there
are cores; on a CPU it is one of its devices, and all of them are compared with it. Cases
(`benchmarks/parity_cases.py`): every backbone's features in evaluation and training, a loss of them, gradients and
running statistics; head, loss, views; one step of each of the three kinds of training. The reference is in float32.
Bounds:

- float32 (products in full precision, no TF32): features and loss 1e-4, an array's greatest error as a share of its
  greatest number; gradients 1e-3, an array's error as a share of its norm, both by norm. Where an array is small, a
  hundredth of the largest of its kind stands for it. A gradient jumps where an activation of a ReLU or a maximum is
  decided by rounding: `KINKED` families and the steps (ResNet-18-IBN) get 1e-2 (seen: 1e-3, of ResNet-152 2e-2);
- bfloat16: error of all features and of all gradients together, as a share of their norm: what rounding to 8 bits
  leaves of random weights in training mode. Features 5% (seen on a CPU: 1%), loss 2%, gradients 10% (seen: 2%), of
  kinked families 70% (seen: 35%): there it tells noise from nonsense, no more.

Views jump where a pixel crosses a threshold (hue, solarization), so they are judged by the norm, 1e-3, in both types.
Exit status 1 where a case is beyond its bounds, failed, or was not reached in time.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags

from benchmarks import parity_cases
from benchmarks.common import accelerator, define_names, header, table
from benchmarks.parity_cases import Numbers
from cion_jax import models

KINDS = ("backbone", "head", "loss", "views", "step")
DTYPES = ("float32", "bfloat16")
FLOAT32 = {"features": 1e-4, "loss": 1e-4, "gradient": 1e-3}
BFLOAT16 = {"features": 0.05, "loss": 0.02, "gradient": 0.1}
KINKED = ("resnet", "osnet", "ghostnet", "step")
KINKED_GRADIENT = {"float32": 1e-2, "bfloat16": 0.7}
VIEWS = {"features": 1e-3}
FLOOR = 1e-2  # share of the greatest number of a kind below which an array counts as small
_TINY = float(np.finfo(np.float32).tiny)


class Outcome(NamedTuple):
    """A case in one type.

    Attributes:
      errors: kind of number -> (error, bound, name of the worst array).
      seconds: that the device took, compiling included.
      failed: what went wrong, or empty.
    """

    case: str
    dtype: str
    errors: dict[str, tuple[float, float, str]]
    seconds: float
    failed: str = ""

    @property
    def good(self) -> bool:
        """Whether it is within all bounds."""
        return not self.failed and all(error <= bound for error, bound, _ in self.errors.values())


def compare(case: str, dtype: str, found: Numbers, expected: Numbers) -> dict[str, tuple[float, float, str]]:
    """Kind -> (error, bound, worst array); a number that is not finite is an infinite error."""
    if found.keys() != expected.keys():
        raise ValueError(f"{case}: {sorted(found.keys() ^ expected.keys())[:3]} are numbers of one side only")
    bounds = _bounds(case, dtype)
    result = {}
    for kind in sorted({name.split("/")[0] for name in expected}):
        names = [name for name in expected if name.split("/")[0] == kind]
        pairs = {n: (np.asarray(found[n], np.float64), np.asarray(expected[n], np.float64)) for n in names}
        if case == "views" or dtype != "float32":
            error, worst = _together(pairs)
        else:
            error, worst = _each(pairs, _norm if kind == "gradient" else _greatest)
        result[kind] = (error if np.isfinite(error) else np.inf, bounds[kind], worst)
    return result


def _bounds(case: str, dtype: str) -> dict[str, float]:
    bounds = VIEWS if case == "views" else FLOAT32 if dtype == "float32" else BFLOAT16
    kinked = case.removeprefix("backbone ").startswith(KINKED)
    return bounds | ({"gradient": KINKED_GRADIENT[dtype]} if kinked else {})


def _greatest(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0))


def _norm(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x).sum()))


def _each(pairs: dict[str, tuple[np.ndarray, np.ndarray]], size: Callable[[np.ndarray], float]) -> tuple[float, str]:
    """The greatest error of an array, and its name."""
    floor = max(FLOOR * max(size(b) for _, b in pairs.values()), _TINY)

    def error(name: str) -> float:
        a, b = pairs[name]
        found = size(a - b) / max(size(b), floor)
        return found if np.isfinite(found) else np.inf

    worst = max(pairs, key=error)
    return error(worst), worst


def _together(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[float, str]:
    """The error of all arrays, and the name of the one that has most of it."""
    off = {name: float(np.square(a - b).sum()) for name, (a, b) in pairs.items()}
    whole = sum(float(np.square(b).sum()) for _, b in pairs.values())
    worst = max(off, key=lambda name: off[name] if np.isfinite(off[name]) else np.inf)
    return float(np.sqrt(sum(off.values()) / max(whole, _TINY))), worst


def outcome(name: str, dtype: str, mesh: jax.sharding.Mesh, expected: Numbers) -> Outcome:
    """One case on `mesh` against the reference."""
    began = time.perf_counter()
    try:
        found = numbers(name, dtype, mesh)
        seconds = time.perf_counter() - began
        return Outcome(name, dtype, compare(name, dtype, found, expected), seconds)
    except Exception as error:  # one that fails is a row of the table, and the others go on
        return Outcome(name, dtype, {}, time.perf_counter() - began, f"{type(error).__name__}: {error}"[:300])


def numbers(name: str, dtype: str, mesh: jax.sharding.Mesh) -> Numbers:
    """A case's numbers; products of float32 in full precision."""
    kind, _, rest = name.partition(" ")
    case = parity_cases.cases([rest] if kind == "backbone" else [])[name]
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        return case(mesh, dtype)


def chosen(backbones: list[str] | None, kinds: list[str] | None) -> list[str]:
    """Names of the cases of some backbones and kinds; None: all."""
    names = parity_cases.cases(backbones or by_family(models.names()))
    return [name for name in names if not kinds or name.split()[0] in kinds]


def by_family(names: list[str]) -> list[str]:
    """One of every family first, then a second: what is not reached in time has a relative that was."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.split("_")[0].rstrip("0123456789"), []).append(name)
    turns = itertools.zip_longest(*families.values())
    return [name for turn in turns for name in turn if name]


def _not_compared(case: str, dtypes: list[str], why: str) -> list[Outcome]:
    """A row of the table for every type."""
    return [Outcome(case, dtype, {}, 0.0, why[:300]) for dtype in dtypes]


def _case(case: str, dtypes: list[str], deadline: float) -> list[Outcome]:
    """A case in all types on the first device of this process, against a CPU."""
    if time.time() > deadline:
        return _not_compared(case, dtypes, LATE)
    one, own = (parity_cases.mesh_of(devices[:1]) for devices in (jax.devices("cpu"), jax.devices()))
    try:
        expected = numbers(case, "float32", one)
    except Exception as error:  # a row of the table like any other failure
        return _not_compared(case, dtypes, f"the reference failed: {error}")
    return [outcome(case, dtype, own, expected) for dtype in dtypes]


def _against_cpu(cases: list[str], dtypes: list[str], deadline: float) -> Iterator[Outcome]:
    """On an accelerator: cases side by side, each in a process that computes its reference, too."""
    with concurrent.futures.ProcessPoolExecutor(_processes(), multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_case, case, dtypes, deadline): case for case in cases}
        try:
            for done in concurrent.futures.as_completed(list(waiting), max(deadline - time.time(), 0)):
                case, failed = waiting.pop(done), done.exception()  # a process that was killed ends the others, too
                yield from _not_compared(case, dtypes, repr(failed)) if failed else done.result()
        except TimeoutError:
            for case in waiting.values():
                yield from _not_compared(case, dtypes, LATE)
            for process in multiprocessing.active_children():
                process.kill()


def _processes() -> int:
    """As many as cores where processes share a device, NVIDIA's and AMD's; a TPU belongs to one."""
    return (os.cpu_count() or 1) if jax.default_backend() == "gpu" else 1


def _against_one(cases: list[str], dtypes: list[str], deadline: float) -> Iterator[Outcome]:
    """On a CPU of several devices: all of them against the first."""
    devices = jax.devices()
    one, all_of_them = parity_cases.mesh_of(devices[:1]), parity_cases.mesh_of(devices)
    for case in cases:
        if time.time() > deadline:
            yield from _not_compared(case, dtypes, LATE)
            continue
        expected = numbers(case, "float32", one)
        yield from (outcome(case, dtype, all_of_them, expected) for dtype in dtypes)


def row(o: Outcome) -> tuple:
    """Cells of the table."""
    errors = [f"{o.errors[k][0]:.1e}" if k in o.errors else "" for k in FLOAT32]
    worst = max(o.errors.values(), key=lambda e: e[0] / e[1])[2] if o.errors else o.failed
    verdict = "ok" if o.good else "FAILED" if o.failed else "BEYOND ITS BOUNDS"
    return o.case, o.dtype, *errors, worst, f"{o.seconds:.0f}", verdict


COLUMNS = ["case", "type", "features", "loss", "gradient", "worst", "s", "verdict"]
LATE = "not done in time"


def measure(cases: list[str], dtypes: list[str], minutes: float) -> Iterator[Outcome]:
    """All cases in all types on this machine's devices, as they are done."""
    deadline = time.time() + 60 * minutes
    if jax.default_backend() != "cpu":
        return _against_cpu(cases, dtypes, deadline)
    return _against_one(cases, dtypes, deadline)


def main(_: list[str]) -> None:
    args = flags.FLAGS
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is shared by the processes
    cases = chosen(args.models, args.cases)
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        sys.exit("nothing to compare: one CPU device; set XLA_FLAGS=--xla_force_host_platform_device_count=8")
    header("device parity: float32 and bfloat16 against float32 on one CPU device")
    print(f"device: {accelerator()}, jax {jax.__version__}")
    outcomes: list[Outcome] = []

    def shown() -> Iterator[tuple]:
        for found in measure(cases, args.dtypes, args.minutes):
            outcomes.append(found)
            yield row(found)

    table(COLUMNS, shown())
    if args.json:
        Path(args.json).write_text(json.dumps([o._asdict() | {"good": o.good} for o in outcomes], indent=1) + "\n")
    beyond = sum(not o.good for o in outcomes)
    print(f"{len(outcomes) - beyond} of {len(outcomes)} within their bounds", flush=True)
    os._exit(1 if beyond else 0)  # a process that still compiles would be waited for


def _define_flags() -> None:
    """Not where the module is imported: other programs have such flags, too."""
    define_names("models", models.names(), None, "Backbones to compare; all of them by default.")
    define_names("cases", KINDS, None, "Kinds of cases; all of them by default.")
    define_names("dtypes", DTYPES, DTYPES, "Types of the arithmetic.")
    flags.DEFINE_float("minutes", 9.0, "Cases that have not begun by then are left out, and said.", lower_bound=0)
    flags.DEFINE_string("json", "", "File for the errors as well.")


if __name__ == "__main__":
    _define_flags()
    app.run(main)

"""Whether a device computes what a CPU does: `python -m benchmarks.device_parity [--models=vit_base,volo_d1]`.

    python -m benchmarks.device_parity --minutes=9 --json=FILE              # on an accelerator: every backbone
    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python -m benchmarks.device_parity

On an accelerator the reference is one CPU device, computed meanwhile by processes of their own; on a CPU it is one of
its devices, and all of them are compared with it. Cases (`benchmarks/parity_cases.py`): every backbone's features in
evaluation and training, a loss of them, gradients and running statistics; head, loss, views; one step of each of the
three kinds of training. The reference is in float32. Bounds:

- float32 (products in full precision, no TF32): features and loss 1e-4, an array's greatest error as a share of its
  greatest number; gradients 1e-3, an array's error as a share of its norm, both by norm. Where an array is small, a
  hundredth of the largest of its kind stands for it. A gradient jumps where an activation of a ReLU or a maximum is
  decided by rounding: `KINKED` families and the steps (ResNet-18-IBN) get 1e-2 (seen: 1e-3);
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
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from benchmarks import parity_cases
from benchmarks.common import ROOT, accelerator, define_names, header, table
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
PROCESSES = max(4, (os.cpu_count() or 1) // 2)  # that compute the reference


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


def outcome(name: str, dtype: str, mesh: jax.sharding.Mesh, expected: Numbers | Path) -> Outcome:
    """One case on `mesh` against the reference: numbers, or a file where they will lie."""
    began = time.perf_counter()
    try:
        found = numbers(name, dtype, mesh)
        seconds = time.perf_counter() - began
        return Outcome(name, dtype, compare(name, dtype, found, _reference(expected)), seconds)
    except Exception as error:  # one that fails is a row of the table, and the others go on
        return Outcome(name, dtype, {}, time.perf_counter() - began, f"{type(error).__name__}: {error}"[:300])


def numbers(name: str, dtype: str, mesh: jax.sharding.Mesh) -> Numbers:
    """A case's numbers; products of float32 in full precision."""
    kind, _, rest = name.partition(" ")
    case = parity_cases.cases([rest] if kind == "backbone" else [])[name]
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        return case(mesh, dtype)


def _reference(expected: Numbers | Path) -> Numbers:
    if not isinstance(expected, Path):
        return expected
    while not expected.exists():
        if (failed := expected.with_suffix(".failed")).exists():
            raise RuntimeError(f"the reference failed: {failed.read_text()}")
        if (expected.parent / "stopped").exists():
            raise RuntimeError("the reference was not computed in time")
        time.sleep(0.1)
    with np.load(expected) as file:
        return dict(file)


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


def _write(folder: Path, cases: list[str], deadline: float) -> None:
    """The reference of some cases; each file gets its name when it is whole."""
    mesh = parity_cases.mesh_of(jax.devices()[:1])
    for name in cases:
        if time.time() > deadline:
            return
        path = folder / f"{name}.npz"
        try:
            arrays: dict[str, Any] = numbers(name, "float32", mesh)
            np.savez(path.with_suffix(".part.npz"), **arrays)
            path.with_suffix(".part.npz").rename(path)
        except Exception as error:  # told to the process that waits for it
            path.with_suffix(".failed").write_text(f"{type(error).__name__}: {error}"[:300])


def _against_cpu(cases: list[str], dtypes: list[str], deadline: float) -> Iterator[Outcome]:
    """On an accelerator: references by processes on the CPU, the device's programs compiled by several threads."""
    mesh = parity_cases.mesh_of(jax.devices()[:1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writers = [_writer(folder, cases[i::PROCESSES], deadline) for i in range(PROCESSES) if cases[i::PROCESSES]]
        pool = concurrent.futures.ThreadPoolExecutor(_threads())
        pairs = [(case, dtype) for case in cases for dtype in dtypes]
        waiting = {pool.submit(outcome, *pair, mesh, folder / f"{pair[0]}.npz"): pair for pair in pairs}
        try:
            for done in concurrent.futures.as_completed(list(waiting), max(deadline - time.time(), 0)):
                del waiting[done]
                yield done.result()
        except TimeoutError:
            yield from (Outcome(*pair, {}, 0.0, LATE) for pair in waiting.values())
        finally:
            (folder / "stopped").touch()
            pool.shutdown(wait=False, cancel_futures=True)
            for writer in writers:
                writer.kill()


def _writer(folder: Path, cases: list[str], deadline: float) -> subprocess.Popen:
    names = [name.removeprefix("backbone ") for name in cases if name.startswith("backbone ")]
    kinds = sorted({name.split()[0] for name in cases})
    command = [sys.executable, "-m", "benchmarks.device_parity", f"--write={folder}", f"--cases={','.join(kinds)}"]
    command += [f"--models={','.join(names)}"] * bool(names)
    command += [f"--minutes={max(deadline - time.time(), 0) / 60}"]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, stdout=subprocess.DEVNULL)


def _threads() -> int:
    return max((os.cpu_count() or 1) - PROCESSES, 1)


def _against_one(cases: list[str], dtypes: list[str], deadline: float) -> Iterator[Outcome]:
    """On a CPU of several devices: all of them against the first."""
    devices = jax.devices()
    one, all_of_them = parity_cases.mesh_of(devices[:1]), parity_cases.mesh_of(devices)
    for case in cases:
        if time.time() > deadline:
            yield from (Outcome(case, dtype, {}, 0.0, LATE) for dtype in dtypes)
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
    cases = chosen(args.models, args.cases)
    if args.write:
        return _write(Path(args.write), cases, time.time() + 60 * args.minutes)
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
    os._exit(1 if beyond else 0)  # a program that is still being compiled in a thread would be waited for


def _define_flags() -> None:
    """Not where the module is imported: other programs have such flags, too."""
    define_names("models", models.names(), None, "Backbones to compare; all of them by default.")
    define_names("cases", KINDS, None, "Kinds of cases; all of them by default.")
    define_names("dtypes", DTYPES, DTYPES, "Types of the arithmetic.")
    flags.DEFINE_float("minutes", 9.0, "Cases that have not begun by then are left out, and said.", lower_bound=0)
    flags.DEFINE_string("json", "", "File for the errors as well.")
    flags.DEFINE_string("write", "", "Folder to write the reference into (what this program calls itself with).")


if __name__ == "__main__":
    _define_flags()
    app.run(main)

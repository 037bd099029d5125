"""Everything that an accelerator is to be asked, in one call: `python -m benchmarks.gpu_session --minutes=9 --out=DIR`.

    python -m benchmarks.gpu_session --minutes=9 --out=DIR [--data=SHARDS]   # on a GPU
    python -m benchmarks.gpu_session --dry --out=DIR                         # small, on a CPU: whether it all runs

In the order of what would be missed most: parity with the CPU; the step of ViT-B with each option of the network on and
off; the step fed from shards (without `--data`, of synthetic pictures); views, loss, forward passes and what embedding
MSMT17's 93,820 images takes at their rate; scoring features of that size; the step of two more backbones; host input.

Each is a command of its own. Together their shares are the whole time, and what one leaves over the next may have, so
that every one is begun; one that is stopped at the end of its share keeps the rows that it printed, and says so in a
row. Programs compiled for an accelerator are kept (`.cache/xla`), so a second session on the same machine goes further:
on an H200 with 16 cores the first of ViT-B took 88 s, each other 21 to 38. Those of parity are compiled without a
search for the fastest kernels.
DIR/session.md and DIR/session.json, written after every command, hold one table with card, driver, versions and
commit (of an exported tree: CION_COMMIT), DIR/NAME.txt what each command printed. Exit status 1 where a command failed
or was stopped.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from benchmarks.common import ROOT, card, commit, define_names, processor
from cion_jax.models.options import OPTIONS

PACKAGES = ("jax", "jaxlib", "flax", "optax", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")
MSMT17 = 93_820  # queries and gallery
_EIGHT = (("XLA_FLAGS", "--xla_force_host_platform_device_count=8"),)  # CPU devices, to compare with one
_CACHE = (("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla")),)
_QUICK = (("XLA_FLAGS", "--xla_gpu_autotune_level=0"),)
_LEAST = 5.0  # seconds below which nothing is begun
_START = 20.0  # seconds that Python and JAX take at most, of parity's share


class Stage(NamedTuple):
    """A command, its minutes of nine, and what it finds in its environment besides."""

    name: str
    command: tuple[str, ...]
    minutes: float
    environ: tuple[tuple[str, str], ...] = ()


class Result(NamedTuple):
    """What became of a stage: `failed` is empty where it ended well; rows are column -> cell."""

    stage: str
    failed: str
    seconds: float
    rows: list[dict[str, str]]


def stages(data: str, dry: bool, minutes: float) -> list[Stage]:
    """All of them, in order; in `minutes` of which each has its share."""
    sets = ",".join(["plain", *OPTIONS])
    step = ("step", f"--batch={8 if dry else 256}", *(("--prototypes=256", "--steps=1") if dry else ("--steps=10",)))
    of_parity = 2.4
    parity = ("--cases=head,loss",) if dry else (f"--minutes={max(minutes * of_parity / 9 - _START / 60, 0):.2f}",)
    one = "--models=vit_tiny" if dry else "--models=vit_base"
    forward = (one, f"--batch={2 if dry else 256}")
    cache = () if dry else _CACHE
    return [
        Stage("parity", ("device_parity", *parity), of_parity, _EIGHT if dry else _QUICK),
        Stage("step", (*step, one, f"--options={'plain,padded_tokens' if dry else sets}"), 3.7, cache),
        Stage("fed", (*step, one, f"--data={data}"), 0.4, cache),
        Stage("views", ("views",), 0.5, cache),
        Stage("loss", ("loss",), 0.2, cache),
        Stage("forward", ("backbones", *forward), 0.6, cache),
        Stage("evaluation", ("evaluation", f"--cases={'market' if dry else 'msmt17'}-device"), 0.4),
        Stage("others", (*step, one if dry else "--models=vit_small,resnet50_ibn"), 0.6, cache),
        Stage("host input", ("host_input",), 0.2),
    ]


def run(stage: Stage, seconds: float, out: Path) -> Result:
    """Runs a stage's command for some seconds at most; what it printed until then counts."""
    if seconds < _LEAST:
        return Result(stage.name, f"not begun: {max(seconds, 0):.0f} s were left for it", 0.0, [])
    began, path = time.monotonic(), out / f"{stage.name.replace(' ', '_')}.txt"
    command = [sys.executable, "-m", *(f"benchmarks.{stage.command[0]}", *stage.command[1:])]
    environ = {**os.environ, **dict(stage.environ)}
    with open(path, "w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
            failed = f"exit status {status}: {_last_line(path)}" if status else ""
        except subprocess.TimeoutExpired:
            failed = f"stopped after {seconds:.0f} s"
        finally:
            _end(process)
    return Result(stage.name, failed, time.monotonic() - began, tables(path.read_text(errors="replace")))


def _end(process: subprocess.Popen) -> None:
    """Ends a command with all that it began, or these would take the next one's time."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tables(text: str) -> list[dict[str, str]]:
    """The rows of all Markdown tables in a text; a line of another kind, such as a warning, ends no table."""
    lines = [line.strip().removeprefix("|").removesuffix("|") for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    for own, following in itertools.pairwise([*cells, []]):
        if _rule(following):
            columns = own
        elif not _rule(own) and len(own) == len(columns):
            rows.append(dict(zip(columns, own, strict=True)))
    return rows


def _rule(cells: Sequence[str]) -> bool:
    """Whether it is the line below a table's head."""
    return set("".join(cells)) == {"-"}


def derived(results: Sequence[Result]) -> list[Result]:
    """What follows from several stages: the views' share of a step, MSMT17 embedded at the forward pass's rate."""
    found = {result.stage: result.rows for result in results}
    rows = []
    rates = [float(row["images/s"]) for row in found.get("views", [])]
    measured = [row for row in found.get("step", []) if row["images/s"]]  # the others failed
    for row in measured if rates else []:
        share = float(row["images/s"]) / max(rates)
        rows.append({"views' share of a step": row["backbone"], "options": row["options"], "share": f"{share:.1%}"})
    for row in found.get("forward", []):
        seconds = MSMT17 / float(row["forward"])
        rows.append({"embedding MSMT17's images": row["backbone"], "s": f"{seconds:.1f}"})
    return [Result("derived", "", 0.0, rows)] if rows else []


def machine() -> dict[str, str]:
    """Card, driver, processor, versions, commit, date."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    python = sys.version.split()[0]
    return {
        "card, driver, memory": card() or "no NVIDIA card",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "versions": ", ".join(f"{name} {version}" for name, version in {"python": python, **versions}.items()),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
    }


def markdown(about: dict[str, str], results: Sequence[Result]) -> str:
    """One table: a line for every row of every stage, and for every stage that did not end well."""
    lines = ["# Accelerator session", "", *(f"- {name}: {value}" for name, value in about.items()), ""]
    lines += ["| stage | what | numbers |", "| --- | --- | --- |"]
    for result in results:
        if result.failed:
            lines.append(f"| {result.stage} | NOT COMPLETE | {result.failed.replace('|', '/')} |")
        for row in result.rows:
            (_, what), *rest = row.items()
            numbers = ", ".join(f"{name} {value}".strip() for name, value in rest if value)
            lines.append(f"| {result.stage} | {what} | {numbers} |")
    return "\n".join(lines) + "\n"


def _last_line(path: Path) -> str:
    return next((line for line in reversed(path.read_text(errors="replace").splitlines()) if line.strip()), "")[:200]


def write(out: Path, results: Sequence[Result]) -> None:
    """Both files, after every stage anew: whatever ends the session, what was measured is there."""
    about, all_of_them = machine(), [*results, *derived(results)]
    (out / "session.md").write_text(markdown(about, all_of_them))
    found = {"machine": about, "stages": [result._asdict() for result in all_of_them]}
    (out / "session.json").write_text(json.dumps(found, indent=1) + "\n")


def session(chosen: Sequence[Stage], minutes: float, out: Path) -> list[Result]:
    """Runs the stages one after another, each until the end of its share."""
    began, results = time.monotonic(), []
    ends = list(itertools.accumulate(stage.minutes for stage in chosen))
    for stage, end in zip(chosen, ends, strict=True):
        results.append(run(stage, began + 60 * minutes * end / ends[-1] - time.monotonic(), out))
        print(f"{stage.name}: {results[-1].failed or 'ok'}, {results[-1].seconds:.0f} s", flush=True)
        write(out, results)
    return results


def _shards(folder: Path) -> str:
    """A folder of synthetic shards; without what makes them, one that is not there, which the stage then says."""
    try:
        from benchmarks.host_input import write_shards

        write_shards(folder)
    except ImportError as error:
        print(f"no synthetic shards: {error}", file=sys.stderr)
    return str(folder)


def main(_: list[str]) -> None:
    args = flags.FLAGS
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        needs = not args.stages or "fed" in args.stages
        data = args.data or (_shards(Path(name) / "shards") if needs else name)
        found = stages(data, args.dry, args.minutes)
        chosen = [stage for stage in found if not args.stages or stage.name in args.stages]
        results = session(chosen, args.minutes, out)
    print((out / "session.md").read_text())
    sys.exit(1 if any(result.failed for result in results) else 0)


if __name__ == "__main__":
    flags.DEFINE_float("minutes", 9.0, "For everything.", lower_bound=0)
    flags.DEFINE_string("out", None, "Folder for the results.", required=True)
    flags.DEFINE_string("data", "", "Folder of identity shards; synthetic ones otherwise.")
    flags.DEFINE_boolean("dry", False, "Small sizes, to see that all of it runs.")
    define_names("stages", [stage.name for stage in stages("", False, 0)], None, "Stages; all by default.")
    app.run(main)

"""Training steps compiled for a device that is not there, as `benchmarks.step --programs=DIR` takes them.

    python -m benchmarks.step_programs --topology=h200:1 --out=DIR --batch=256 --models=vit_base,vit_small
    python -m benchmarks.step --programs=DIR --batch=256 --models=vit_base,vit_small    # on the device

Minutes of a device's time are dear, and a program of ViT-B takes one of them to compile. DIR holds a program and its
text for every backbone and set of options; the columns say what each keeps in memory and what it moves. Both commands
need the same release of JAX and equal flags. XLA tries no kernels without a device: products and convolutions are what
cuBLAS and cuDNN choose when the program runs, so that rates of these programs compare with each other only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import app, flags
from jax.experimental import serialize_executable

from benchmarks import step
from benchmarks.common import header, table
from cion_jax.distributed import ahead, hlo_traffic, sharding
from cion_jax.tasks.distill.config import Config
from cion_jax.tasks.distill.task import Distill
from cion_jax.training.step import make_trainer


def write(folder: str, config: Config, compiled: Any) -> None:
    """Keeps a program, and its text beside it."""
    path = step.program_file(folder, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(serialize_executable.serialize(compiled)[0])
    path.with_suffix(".txt").write_text(compiled.as_text())


def _rows(folder: str, devices: list[Any]) -> Iterator[tuple]:
    for name, options in step.measured():
        began, config = time.perf_counter(), step.make_config(name, options)
        mesh = sharding.make_mesh(config.mesh, devices)
        task: Any = Distill(config)
        trainer = make_trainer(task, mesh, (1000,) * config.train.epochs)
        where = jax.sharding.NamedSharding(mesh, sharding.BATCH)
        batch = {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where) for n, x in step.host_batch(config).items()}
        compiled = ahead.compiled(trainer.step, devices, trainer.like, batch, step.K)
        write(folder, config, compiled)
        needs, moved = compiled.memory_analysis(), hlo_traffic.Program(compiled.as_text()).bytes()
        gib = (needs.temp_size_in_bytes + needs.argument_size_in_bytes) / 2**30
        yield name, options, f"{time.perf_counter() - began:.0f}", f"{gib:.1f}", f"{moved / 1e9:.0f}"


def main(_: list[str]) -> None:
    args = flags.FLAGS
    header(f"programs for {args.topology}: batch {args.batch}, {args.prototypes} prototypes, {args.precision}")
    devices, _chip = ahead.devices_of(args.topology)
    table(["backbone", "options", "s", "GiB", "GB moved"], _rows(args.out, devices))


if __name__ == "__main__":
    flags.DEFINE_string("topology", None, "What to compile for, e.g. h200:1.", required=True)
    flags.DEFINE_string("out", None, "Folder for the programs.", required=True)
    app.run(main)

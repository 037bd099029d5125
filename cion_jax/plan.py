"""What a training step will need and how fast it can be, before paying for the machine.

    python -m cion_jax.plan --config=configs/vit_b.py --topology=v5e:4x4 --config.data.batch_size=384
    python -m cion_jax.plan --config=configs/vit_b.py --topology=cpu:8 --json=FILE --shardings=FILE --breakdown

Compiles the real step for the topology on a machine that has none of it. TPU topologies need libtpu, which slows and
litters every start of JAX on a CPU and is therefore kept apart:

    .venv/bin/pip install --target .libtpu -r requirements-plan.txt
    PYTHONPATH=.libtpu .venv/bin/python -m cion_jax.plan ...

GPUs (`h200:8`) need JAX's CUDA packages.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from cion_jax.common import cli
from cion_jax.common.files import replaceable, write_text
from cion_jax.common.paths import local_path
from cion_jax.common.typed_config import ConfigError
from cion_jax.data.records import DatasetError
from cion_jax.distributed import ahead, hlo_collectives, hlo_traffic, sharding
from cion_jax.tasks import TASKS, schemas
from cion_jax.training.step import init_state, make_trainer

_PATH = "data.path"  # a plan is made without data

# Parts of a step, as `jax.named_scope` names them where they are computed; the innermost counts.
SCOPES = ("views", "stem", "attention", "mlp", "norm", "head", "loss", "optimizer")


@dataclass(frozen=True)
class Plan:
    """What one training step takes; bytes and FLOPs are of one chip.

    Attributes:
      parameters: of the student, the head included.
      memory: bytes of state, batch, results and temporary arrays at their peak.
      flops: work of a step by XLA's own count.
      bytes: memory traffic of a step, collectives aside, by `distributed.hlo_traffic`: what the program moves at least.
      collectives: kind -> (operations, bytes that leave or enter a chip).
      breakdown: part of the step -> (bytes, floating-point operations of products).
      unknown_loops: loops counted once, as the program does not say how often they run.
      bound_s: by resource, seconds of a step at the chip's full rates; empty where these are not known. Products and
        memory are bounds from below for the program as compiled. That of the links is an estimate: it takes rings, and
        all of a chip's links to be busy.
      fits: whether `memory` fits into a chip; None where its size is not known.
      largest_batch: images of one chip that fit, by a line through two compiled sizes; None likewise, or not asked for.
    """

    topology: str
    devices: int
    batch_size: int
    mesh: dict[str, int]
    parameters: int
    memory: int
    flops: float
    bytes: float
    collectives: dict[str, tuple[int, int]]
    breakdown: dict[str, tuple[int, int]]
    unknown_loops: int
    bound_s: dict[str, float]
    fits: bool | None
    largest_batch: int | None

    @property
    def images_per_second(self) -> tuple[float, float] | None:
        """Of the whole topology, at full rates: if nothing overlapped, and if everything did. The second is a bound as
        far as products and memory limit it; the first is none, as kernels reach no full rates."""
        times = self.bound_s.values()
        return (self.batch_size / sum(times), self.batch_size / max(times)) if times else None


def plan(task: Any, topology: str, largest_batch: bool = True) -> Plan:
    """Compiles the step of a task for a topology.

    Args:
      task: the batch size of its config is the global one.
      topology: as `ahead.devices_of` takes it.
      largest_batch: whether to find out, by compiling a second time.

    Raises:
      ConfigError: no such topology, what compiles for it is missing, or the config does not fit the number of devices.
    """
    devices, chip = ahead.devices_of(topology)
    config = task.config
    mesh = sharding.make_mesh(config.mesh, devices)
    memory, compiled = _compile(task, mesh)
    listing = compiled.as_text()
    found, program = hlo_collectives.of_program(listing), hlo_traffic.Program(listing)
    moved = program.bytes()
    flops = (compiled.cost_analysis() or {}).get("flops", program.flops())  # without a GPU XLA counts nothing for one
    bound = {}
    if chip:
        crossing = sum(size for _, size in found.values())
        bound = {
            "products": flops / chip.flops,
            "memory": moved / chip.memory_rate,
            "links": crossing / chip.link_rate,
        }
    params = jax.eval_shape(lambda: init_state(task)).trained["params"]
    return Plan(
        topology=topology,
        devices=len(devices),
        batch_size=config.data.batch_size,
        mesh=dict(mesh.shape),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        memory=memory,
        flops=flops,
        bytes=moved,
        collectives=found,
        breakdown=program.by_scope(SCOPES),
        unknown_loops=program.unknown_loops,
        bound_s=bound,
        fits=memory < chip.memory_gib * 2**30 if chip else None,
        largest_batch=_largest_batch(task, mesh, memory, chip) if chip and largest_batch else None,
    )


def _compile(task: Any, mesh: jax.sharding.Mesh) -> tuple[int, Any]:
    """(bytes of a chip's memory, compiled step)."""
    config = task.config
    trainer = make_trainer(task, mesh, (1000,) * config.train.epochs)
    shapes = {"image": ((*config.data.canvas, 3), np.uint8), "size": ((2,), np.int32), "identity": ((), np.int32)}
    batch = {
        name: jax.ShapeDtypeStruct((config.data.batch_size, *shape), dtype)
        for name, (shape, dtype) in shapes.items()
        if name in task.fields
    }
    where = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    batch = sharding.abstract(batch, dict.fromkeys(batch, where))
    compiled = ahead.compiled(trainer.step, mesh.devices.flat[0], trainer.like, batch, task.heaviest()[0])
    m: Any = compiled.memory_analysis()
    # The state is donated: the state after the step lies where the one before it was.
    own = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    return own + m.temp_size_in_bytes + m.generated_code_size_in_bytes, compiled


def _largest_batch(task: Any, mesh: jax.sharding.Mesh, memory: int, chip: ahead.Chip) -> int:
    """Images of one chip that fit, as a multiple of whole identity groups."""
    config = task.config
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    unit = task.heaviest()[1] * config.train.accumulate
    own = config.data.batch_size // shares
    other = own // 2 // unit * unit or 2 * own
    less = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=other * shares))
    slope = (memory - _compile(type(task)(less), mesh)[0]) / (own - other)
    return int(own + (chip.memory_gib * 2**30 - memory) / slope) // unit * unit


def text(p: Plan, names: str) -> str:
    """A plan to read."""
    lines = [
        f"{names} on {p.topology}: {p.devices} devices, mesh {p.mesh}, batch {p.batch_size}",
        f"parameters        {p.parameters / 1e6:.1f} M",
        f"memory            {p.memory / 2**30:.2f} GiB a device{_verdict(p)}",
        f"work              {p.flops / 1e12:.2f} TFLOP and {p.bytes / 1e9:.1f} GB of memory traffic a device and step",
    ]
    lines += [
        f"{kind:17s} {count} times, {size / 1e6:.1f} MB a device" for kind, (count, size) in p.collectives.items()
    ]
    if p.bound_s:
        limit = max(p.bound_s, key=lambda name: p.bound_s[name])
        products, memory, links = (f"{name} {seconds * 1e3:.1f} ms" for name, seconds in p.bound_s.items())
        low, high = p.images_per_second or (0, 0)
        lines += [
            f"at least          {products}, {memory}; about {links}: bound by {limit}",
            f"images/s          {low:,.0f} if nothing overlaps to {high:,.0f} if all does, at the chip's full rates",
        ]
    if p.largest_batch is not None:
        lines += [f"largest batch     about {p.largest_batch} images a device"]
    if p.unknown_loops:
        lines += [f"warning: {p.unknown_loops} loops count once, as the program does not say how often they run"]
    return "\n".join(lines)


def breakdown(p: Plan) -> str:
    """A table of a plan's parts."""
    lines = [f"{'part':10s} {'GB':>8s} {'share':>6s} {'TFLOP':>8s} {'share':>6s}"]
    whole = [max(sum(part[i] for part in p.breakdown.values()), 1) for i in (0, 1)]
    for name, (size, flops) in p.breakdown.items():
        shares = size / whole[0], flops / whole[1]
        lines += [f"{name:10s} {size / 1e9:8.2f} {shares[0]:6.1%} {flops / 1e12:8.3f} {shares[1]:6.1%}"]
    return "\n".join(lines)


def _verdict(p: Plan) -> str:
    return "" if p.fits is None else ", fits" if p.fits else ", DOES NOT FIT"


def _outputs() -> dict[str, Path]:
    """The files to write, by flag; raises UserError where one cannot be."""
    given = {flag: flags.FLAGS[flag].value for flag in ("json", "shardings")}
    outputs = {flag: local_path(name, f"--{flag}") for flag, name in given.items() if name}
    for flag, path in outputs.items():
        others = [other for name, other in outputs.items() if name < flag]
        replaceable(path, f"--{flag}", flags.FLAGS.overwrite, cli.config_files())
        if path.absolute() in map(Path.absolute, others):
            raise ConfigError(f"--json and --shardings are both {path}; give two names")
    return outputs


def _task(config: Any) -> Any:
    """The task, which takes its sizes from the config or from the data; ConfigError where neither is given."""
    try:
        return TASKS[config.task](config)
    except DatasetError as error:
        if config.data.path != cli.UNUSED:
            raise
        raise ConfigError(
            f"--config.{_PATH} is not given, and a plan of the task {config.task} needs it or the number that it would "
            "tell: --config.model.classes, people, of a fine-tuning; --config.memory.size, clusters, of a clustering"
        ) from error


def main(settings: Callable[[], Any], _: Sequence[str]) -> int:
    """Plans what the flags ask for: exit status 1 where the step does not fit."""
    args, config = flags.FLAGS, settings()
    outputs = _outputs()
    task = _task(config)
    found = plan(task, args.topology, args.largest_batch)
    print(text(found, config.model.name))
    if args.breakdown:
        print(breakdown(found))
    if "json" in outputs:
        row = dataclasses.asdict(found) | {"images_per_second": found.images_per_second}
        write_text(outputs["json"], json.dumps(row, indent=1) + "\n")
    if "shardings" in outputs:
        mesh = sharding.make_mesh(config.mesh, ahead.devices_of(args.topology)[0])
        state = jax.eval_shape(lambda: init_state(task))
        write_text(outputs["shardings"], sharding.describe(state, mesh, task.rules) + "\n")
    return int(found.fits is False)


def define_flags() -> Callable[[], Any]:
    """Defines what the command takes; the function returned gives the settings."""
    flags.DEFINE_string("topology", None, "cpu:DEVICES or KIND:SHAPE such as v5e:4x4, h200:8.", required=True)
    flags.DEFINE_string("json", "", "File to write the plan to as well.")
    flags.DEFINE_string("shardings", "", "File for a line about every array: shape, split, bytes on a device.")
    flags.DEFINE_bool("breakdown", False, "Prints memory traffic and products by part of the step as well.")
    flags.DEFINE_bool("largest_batch", True, "Also compiles a second size, to say how many images of a chip fit.")
    flags.DEFINE_bool("overwrite", False, "Replaces a file that is there already.")
    return cli.define_config(schemas(), unused=[_PATH])


def run_main() -> None:
    """The command `cion-plan`."""
    cli.run(functools.partial(main, define_flags()))


if __name__ == "__main__":
    run_main()

"""Images per second of the whole training step: `python -m benchmarks.step [--models=vit_small,vit_base]`.

    python -m benchmarks.step --batch=16 --precision=float32 --models=resnet50_ibn,vit_small     # two CPU cores
    python -m benchmarks.step --batch=256 --models=vit_small,vit_base,resnet50_ibn               # one large GPU
    python -m benchmarks.step --batch=256 --models=vit_small --data=OUT                          # fed from real shards
    python -m benchmarks.step --batch=256 --options=plain,padded_tokens,fp8_products

Views, teacher, student, loss, update and teacher average; 2 global views of 256x128 and 8 local ones of 128x64 an
image, K = 8. Without --data one batch lies on the device already; with it the host reads and decodes every batch, and
the share of the time that the device waited for it is shown. Products are the multiply-adds that the networks
themselves need (views and whatever is computed again do not count); "of peak" is their share of the rate of a large
matrix product, measured in the same call. `--options` measures every backbone that has them with each set of
`cion_jax.models.options`, one after another: compilers try kernels on the device, which would disturb what is measured,
and of eight threads that compiled ViT-B on an H200 none was ready after 190 s, where one alone takes 71 s.

On a CPU where PyTorch is installed, the released step in PyTorch
(`benchmarks/torch_step.py`) runs in the same call: its milliseconds, and how many times as fast ours is. Our trainer
keeps freed memory on a CPU (`cion_jax/distributed/cpu_allocator.py`); the rival is measured as it comes, and again
with memory kept.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.common import accelerator, define_names, header, median_seconds, table
from cion_jax import models
from cion_jax.common import typed_config
from cion_jax.distributed import cpu_allocator, sharding
from cion_jax.models import flops
from cion_jax.tasks.distill.config import Config
from cion_jax.tasks.distill.task import Distill
from cion_jax.training.config import LoopConfig
from cion_jax.training.step import make_trainer

MODELS = define_names("models", models.names(), ["vit_small", "vit_base", "resnet50_ibn"], "Backbones to measure.")
BATCH = flags.DEFINE_integer("batch", 16, "Images in a batch, a multiple of 8.")
PROTOTYPES = flags.DEFINE_integer("prototypes", 65536, "Width of the head's output.")
PRECISION = flags.DEFINE_enum("precision", "bfloat16", ["bfloat16", "float32"], "Compute type.")
STEPS = flags.DEFINE_integer("steps", 10, "Steps whose median counts, after two that do not.")
SETS = flags.DEFINE_list("options", ["plain"], "Sets of the network's options, each NAME+NAME or plain.")
DATA = flags.DEFINE_string("data", "", "Folder of identity shards to feed from.")

K = 8
PLAIN = str.maketrans("\n|", " /")  # what a cell of a table may hold
PRODUCT = {"cpu": 2048}  # edge of the matrices of the peak; elsewhere 8192


def _config(name: str, options: str = "plain") -> Config:
    settings = typed_config.thaw(Config())
    settings.update_from_flattened_dict(
        {
            "model.name": name,
            "model.prototypes": PROTOTYPES.value,
            "model.dtype": PRECISION.value,
            "model.options": () if options == "plain" else tuple(options.split("+")),
            "data.path": DATA.value or "none",
            "data.batch_size": BATCH.value,
            "data.curriculum": ((0, K),),
        }
    )
    return typed_config.freeze(Config, settings)


def _fed(config: Config) -> Iterator[dict[str, np.ndarray]]:
    """Batches of real shards, without end."""
    return Distill(dataclasses.replace(config, train=LoopConfig(epochs=1000))).stream().batches()


def _repeated(config: Config, mesh: jax.sharding.Mesh) -> Iterator[dict[str, Any]]:
    shape = (config.data.batch_size, *config.data.canvas)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    size = np.full((shape[0], 2), config.data.canvas, np.int32)
    return itertools.repeat(sharding.put_batch({"image": image, "size": size}, mesh, Distill.fields))


def _products(config: Config) -> int:
    """Multiply-adds that one image needs: its views once forward through the teacher, thrice through the student."""
    views, backbone = config.views, models.abstract(config.model.name)
    whole, part = (
        flops.multiply_adds(backbone, v.height, v.width) + _head_products(config, backbone.features)
        for v in (views.global_1, views.local)
    )
    return 2 * whole + 3 * (2 * whole + views.local_views * part)


def _head_products(config: Config, features: int) -> int:
    m = config.model
    return features * m.hidden + m.hidden**2 + m.hidden * m.bottleneck + m.bottleneck * m.prototypes


def _peak() -> float:
    """Multiply-adds per second of a matrix product."""
    edge = PRODUCT.get(jax.default_backend(), 8192)
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((edge, edge)), PRECISION.value)
    several = jax.jit(lambda a: jax.lax.fori_loop(0, 10, lambda _, b: a @ b, a))
    return 10 * edge**3 / median_seconds(lambda: jax.block_until_ready(several(matrix)))


def compiled_step(config: Config, mesh: jax.sharding.Mesh) -> tuple[Any, Any, float]:
    """(what makes the state, compiled step, seconds that compiling took); programs that wait have no state yet."""
    task: Any = Distill(config)
    trainer = make_trainer(task, mesh, (1000,) * config.train.epochs)
    began = time.perf_counter()
    compiled = trainer.step.lower(trainer.like, next(_repeated(config, mesh)), K).compile()
    return trainer.init, compiled, time.perf_counter() - began


def _times(state: Any, step: Callable, data: Iterator, mesh: jax.sharding.Mesh) -> tuple[list[float], float]:
    """Seconds of every step, share of them spent waiting for data; looks at the step before, like the trainer."""
    seconds, waits, held, began = [], [], None, time.perf_counter()
    for batch in itertools.islice(data, STEPS.value + 2):
        waits.append(time.perf_counter() - began)
        on_device = batch if isinstance(batch["image"], jax.Array) else sharding.put_batch(batch, mesh, Distill.fields)
        state, measured = step(state, on_device)
        jax.block_until_ready(held)
        held, now = measured, time.perf_counter()
        seconds.append(now - began)
        began = now
    return seconds[2:], sum(waits[2:]) / sum(seconds[2:])


def _rival_ms(name: str) -> float | None:
    """Milliseconds of the released step in PyTorch on this machine's processor, where it can be measured."""
    if jax.default_backend() != "cpu" or not importlib.util.find_spec("torch"):
        return None
    from benchmarks import torch_step

    if name not in torch_step.BACKBONES:
        return None
    return 1e3 * statistics.median(torch_step.seconds(name, BATCH.value, PROTOTYPES.value, STEPS.value))


def _compiled(name: str, options: str) -> tuple[Config, Any, tuple[Any, Any, float]]:
    config = _config(name, options)
    mesh = sharding.make_mesh(config.mesh)
    return config, mesh, compiled_step(config, mesh)


def _row(name: str, options: str, compiled: tuple, peak: float, rivals: list[float | None]) -> tuple:
    config, mesh, (init, step, compiling) = compiled
    needs = step.memory_analysis()
    seconds, waiting = _times(init(), step, _fed(config) if DATA.value else _repeated(config, mesh), mesh)
    ms = 1e3 * statistics.median(seconds)
    rate = 1e3 * BATCH.value / ms
    products = _products(config)
    gib = (needs.temp_size_in_bytes + needs.argument_size_in_bytes) / 2**30
    cells = f"{compiling:.0f}", f"{ms:.0f}", f"{rate:.1f}", f"{products / 1e9:.1f}"
    shares = f"{2 * products * rate / 1e12:.2f}", f"{products * rate / peak:.1%}", f"{gib:.1f}", f"{waiting:.1%}"
    compared = itertools.chain.from_iterable((f"{r:.0f}", f"{r / ms:.2f}") if r else ("", "") for r in rivals)
    return name, options, *cells, *shares, *compared


def _sets(name: str) -> list[str]:
    """The sets of options to measure a backbone with."""
    has = "options" in inspect.signature(models.registry.BACKBONES[name].func.__init__).parameters
    return [options for options in SETS.value if has or options == "plain"]


def _rows(rivals: dict[str, list[float | None]], peak: float, failed: list[str]) -> Iterator[tuple]:
    """Row by row; adds to `failed`."""
    for name, options in ((n, options) for n in MODELS.value for options in _sets(n)):
        try:
            yield _row(name, options, _compiled(name, options), peak, rivals[name])
        except Exception as error:  # no memory, or an option that this device cannot: a row, and the others go on
            failed.append(name)
            yield name, options, f"FAILED: {type(error).__name__}: {error}".translate(PLAIN)[:300], *[""] * 11


def main(_: list[str]) -> None:
    header(f"training step: batch {BATCH.value}, K {K}, {PROTOTYPES.value} prototypes, {PRECISION.value}")
    cpu_allocator.one_step_at_a_time()
    before = {name: _rival_ms(name) for name in MODELS.value}
    cpu_allocator.keep_freed()
    rivals = {name: [before[name], _rival_ms(name)] for name in MODELS.value}
    peak = _peak()
    print(f"device: {accelerator()}, jax {jax.__version__}; peak {2 * peak / 1e12:.2f} TFLOP/s")
    columns = [
        "backbone",
        "options",
        "compile s",
        "ms",
        "images/s",
        "G products/image",
        "TFLOP/s",
        "of peak",
        "GiB",
        "waiting",
    ]
    columns += ["PyTorch ms", "ratio", "memory kept ms", "ratio"]
    failed: list[str] = []
    table(columns, _rows(rivals, peak, failed))
    if failed:
        sys.exit(f"{len(failed)} programs failed")


if __name__ == "__main__":
    app.run(main)

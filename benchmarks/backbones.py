"""Images per second of every backbone, forward and forward with backward: `python -m benchmarks.backbones`.

    python -m benchmarks.backbones [--models=vit_base,swin_tiny] [--batch=256]
    taskset -c 1 python -m benchmarks.backbones --busy    # beside other work: per core, of processor time

Images of 256x128, eight at once if not told otherwise (too few for a GPU); float32 on a CPU, bfloat16 elsewhere. Beside
each rate the one that its multiply-adds alone would allow at the measured peak of a matrix product, the rate once
fused, and, where PyTorch and timm (of OSNet the package reid) are installed, how many times as fast as theirs our
forward pass is, and both passes. They have the faster order of axes of two. timm's ViT has another stem, its Swin
windows of 7x7 and its ResNet dilates its last stage: work of nearly the same size, not the same function.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

from benchmarks.common import accelerator, define_names, header, median_seconds, table
from cion_jax import models
from cion_jax.distributed import cpu_allocator
from cion_jax.models import flops
from cion_jax.models.fuse import fuse

MODELS = define_names("models", models.names(), None, "Backbones to measure; all of them by default.")
BATCH = flags.DEFINE_integer("batch", 8, "Images at once.", lower_bound=1)
BUSY = flags.DEFINE_boolean("busy", False, "Count processor time: for one core of a machine that others use as well.")

HEIGHT, WIDTH = 256, 128
BACKWARD = 3  # forward and backward pass together have three times the products of the forward pass
PRODUCT = 2048, 8192  # edge of the matrices of the peak: on a CPU, elsewhere
REPEATS = 3
TIMM = {"ghostnet_0_5": "ghostnet_050", "ghostnet_1_0": "ghostnet_100", "ghostnet_1_3": "ghostnet_130"}
TIMM_SUFFIX = {"swin": "_patch4_window7_224", "vit": "_patch16_224", "volo": "_224"}


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _dtype() -> type:
    return jnp.float32 if _on_cpu() else jnp.bfloat16


def _seconds(function: Callable, *arguments: Any) -> float:
    compiled = jax.jit(function).lower(*arguments).compile()
    return _median(lambda: jax.block_until_ready(compiled(*arguments)))


def _median(run: Callable[[], object]) -> float:
    return median_seconds(run, REPEATS, time.process_time if BUSY.value else time.perf_counter)


def _peak() -> float:
    """Multiply-adds per second of a matrix product."""
    size = PRODUCT[0 if _on_cpu() else 1]
    matrix = jnp.ones((size, size), _dtype())
    return size**3 / _seconds(jnp.matmul, matrix, matrix)


def _forward(module: nnx.Module) -> tuple:
    """Function and arguments of a forward pass in evaluation mode."""
    graphdef, *trees = models.split(module)
    return lambda trees, x: models.merge(graphdef, *trees)(x), trees


def _training(module: nnx.Module) -> tuple:
    graphdef, params, stats = models.split(module)

    def loss(params: dict, stats: dict, x: jax.Array) -> jax.Array:
        return jnp.square(models.merge(graphdef, params, stats)(x, train=True, key=jax.random.key(0))).sum()

    return jax.grad(loss), params, stats


def _row(name: str, peak: float) -> tuple:
    module = models.create(name, dtype=_dtype(), rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH.value, HEIGHT, WIDTH, 3)), _dtype())
    forward, training = _seconds(*_forward(module), images), _seconds(*_training(module), images)
    fused = _seconds(*_forward(fuse(module)), images)
    floor = BATCH.value * flops.multiply_adds(module) / peak
    cells = [f"{BATCH.value / s:.1f}" for s in (floor, forward, fused, floor * BACKWARD, training)]
    model = _theirs(name)
    theirs = (None, None) if model is None else _their_seconds(model)
    ratios = ("" if t is None else f"{t / o:.2f}" for t, o in zip(theirs, (forward, training), strict=True))
    return name, *cells, f"{forward / fused:.2f}", *ratios


def _theirs(name: str) -> Any:
    """The network in PyTorch, by timm or, OSNet, by the package reid; None where that is not installed or has none."""
    of_reid = name.startswith("osnet")
    if name.endswith("_ibn") or not all(map(importlib.util.find_spec, ("torch", "reid" if of_reid else "timm"))):
        return None
    if of_reid:
        osnet = importlib.import_module("reid.architectures.osnet")
        variant = name.removeprefix("osnet_")
        return osnet.build_osnet(variant) if variant.startswith("x") else None
    timm = importlib.import_module("timm")
    family = name.split("_")[0]
    kw: dict = {"img_size": (HEIGHT, WIDTH)} if family in TIMM_SUFFIX else {}
    if family.startswith("resnet"):
        kw["output_stride"] = 16  # the last stage of stride 1, as ours
    return timm.create_model(TIMM.get(name, name) + TIMM_SUFFIX.get(family, ""), num_classes=0, **kw)


def _their_seconds(model: Any) -> tuple[float, float]:
    """Seconds of PyTorch's forward pass, and of it with the backward pass, each in the faster order of the axes."""
    import torch

    def forward(images: Any) -> None:
        with torch.inference_mode():
            model(images)

    def training(images: Any) -> None:
        model(images).square().sum().backward()

    seconds = []
    for order in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(BATCH.value, 3, HEIGHT, WIDTH).to(memory_format=order)
        model.to(memory_format=order).eval()
        once = _median(functools.partial(forward, images))
        model.train()
        seconds.append((once, _median(functools.partial(training, images))))
    first, second = zip(*seconds, strict=True)
    return min(first), min(second)


def main(_: list[str]) -> None:
    cpu_allocator.one_step_at_a_time()  # both as in training; what is freed stays for PyTorch, too
    cpu_allocator.keep_freed()
    header(f"backbones: {BATCH.value} images of {HEIGHT}x{WIDTH}, {jnp.dtype(_dtype()).name}")
    peak = _peak()
    print(f"device: {accelerator()}, jax {jax.__version__}; peak {peak / 1e9:.0f} G multiply-adds/s")
    rates = ["floor", "forward", "fused", "floor fwd+bwd", "fwd+bwd"]
    ratios = ["fused/forward", "PyTorch", "PyTorch fwd+bwd"]
    print("images per second" + " and core, of processor time" * BUSY.value)
    table(["backbone", *rates, *ratios], (_row(name, peak) for name in MODELS.value or models.names()))


if __name__ == "__main__":
    app.run(main)

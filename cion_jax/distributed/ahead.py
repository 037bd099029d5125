"""Chips that programs are compiled for on a machine that has none of them, and their rates by the data sheets."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from cion_jax.common import target
from cion_jax.common.typed_config import ConfigError


class Chip(NamedTuple):
    """A chip's rates by its maker's data sheet: GiB of memory, bf16 FLOP/s, memory bytes/s, interconnect bytes/s (all
    links together, one direction), and the shapes that a slice may have."""

    memory_gib: float
    flops: float
    memory_rate: float
    link_rate: float
    shapes: tuple[str, ...]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
_HOST = ("1", "2", "4", "8")  # GPUs of one machine
CHIPS = {
    "v4": Chip(32, 275e12, 1228e9, 300e9, _CUBES),
    "v5e": Chip(16, 197e12, 819e9, 200e9, _FLAT),
    "v5p": Chip(95, 459e12, 2765e9, 600e9, _CUBES),
    "v6e": Chip(32, 918e12, 1640e9, 448e9, _FLAT),
    "a100": Chip(80, 312e12, 2039e9, 300e9, _HOST),
    "h100": Chip(81_559 / 1024, 989.5e12, 3350e9, 450e9, _HOST),
    "h200": Chip(143_771 / 1024, 989.5e12, 4800e9, 450e9, _HOST),
}
# What XLA asks of an NVIDIA GPU that it compiles for: CUDA's own names and numbers; of cuDNN, the least that JAX takes.
_TARGET = """
platform_name: "CUDA"
device_description_str: "NVIDIA {name}"
dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
runtime_version {{ major: {cuda} minor: 0 patch: 0 }}
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: 0 }}
  core_count: {cores}
  fpus_per_core: {units}
  clock_rate_ghz: {clock}
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  l2_cache_size: {cache}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {shared_block}
  shared_memory_per_core: {shared_core}
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  threads_per_warp: 32
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
"""
_HOPPER: dict[str, Any] = {
    "major": 9,
    "cores": 132,
    "units": 128,
    "clock": 1.98,
    "shared_block": 232448,
    "shared_core": 233472,
}
_GPUS: dict[str, dict[str, Any]] = {
    "a100": {
        "major": 8,
        "cores": 108,
        "units": 64,
        "clock": 1.41,
        "shared_block": 166912,
        "shared_core": 167936,
        "cache": 40 << 20,
    },
    "h100": _HOPPER | {"cache": 50 << 20},
    "h200": _HOPPER | {"cache": 60 << 20},
}
# Without a GPU XLA has no tile sizes for some of its own products; cuBLAS chooses when the program runs.
GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False}


def devices_of(topology: str) -> tuple[list[Any], Chip | None]:
    """Devices to compile for, and what they are, None for CPUs.

    Args:
      topology: `cpu:DEVICES` or `KIND:SHAPE`, e.g. `v5e:4x4`, `h200:8`.

    Raises:
      ConfigError: no such topology, or the package that compiles for it is missing.
    """
    kind, _, shape = topology.partition(":")
    if kind == "cpu" and shape.isdigit() and int(shape) > 0:
        jax.config.update("jax_num_cpu_devices", int(shape))
        return jax.devices("cpu")[: int(shape)], None
    if kind not in CHIPS or shape not in CHIPS[kind].shapes:
        right = "; ".join(f"{kind}: {' '.join(chip.shapes)}" for kind, chip in CHIPS.items())
        raise ConfigError(f"there is no topology {topology!r}; give cpu:DEVICES or KIND:SHAPE of {right}")
    return (_gpus(kind, shape) if kind in _GPUS else _tpus(topology)), CHIPS[kind]


def _tpus(topology: str) -> list[Any]:
    if not importlib.util.find_spec("libtpu"):
        raise ConfigError(
            f"--topology={topology} needs libtpu: `.venv/bin/pip install --target .libtpu -r requirements-plan.txt`, "
            "then run this command with PYTHONPATH=.libtpu"
        )
    return topologies.get_topology_desc(topology, platform="tpu").devices


def _gpus(kind: str, shape: str) -> list[Any]:
    version = cuda_version()
    if not version:
        raise ConfigError(
            f"--topology={kind}:{shape} needs JAX's CUDA packages, a GPU it does not: `pip install 'cion-jax[cuda13]'`"
        )
    numbers = {"bandwidth": int(CHIPS[kind].memory_rate), "memory": int(CHIPS[kind].memory_gib * 2**30)}
    described = _TARGET.format(name=kind.upper(), cuda=version, **numbers, **_GPUS[kind])
    name, gpus = f"{kind}:{shape}", f"1x1x{shape}"  # slices, machines, GPUs of one
    return topologies.get_topology_desc(name, "cuda", target_config=described, topology=gpus).devices


def cuda_version() -> int | None:
    """The newest CUDA that JAX's installed packages are for."""
    return next((number for number in (13, 12) if importlib.util.find_spec(f"jax_cuda{number}_plugin")), None)


def compiled(function: Any, device: Any, *args: Any) -> Any:
    """A function under `jax.jit` compiled for devices that need not be there.

    Args:
      function: what `jax.jit` returned.
      device: one of those that `devices_of` gives.
      args: its arguments, arrays as `jax.ShapeDtypeStruct` with a sharding over these devices.
    """
    gpu = device.platform in ("cuda", "gpu")
    with target.ahead_of_cuda() if gpu else contextlib.nullcontext():
        lowered = function.lower(*args)
    return lowered.compile(GPU_OPTIONS if gpu else None)

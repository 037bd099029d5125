"""DukeMTMC-reID's naming, which Occluded-Duke shares: Zheng et al., ICCV 2017; Miao et al., ICCV 2019."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cion_jax.reid.benchmarks.base import REGISTRY, RULES, Benchmark, Reader, named

EXAMPLE = "0005_c2_f0046985.jpg"


def read(folder: Path, *, name: str) -> Benchmark:
    """Reads a folder that holds `query` and `bounding_box_test`."""
    return Benchmark(name, RULES, named(folder / "query", EXAMPLE), named(folder / "bounding_box_test", EXAMPLE))


for _name in ("dukemtmc", "occluded_duke"):
    REGISTRY.register(_name, Reader(partial(read, name=_name)))

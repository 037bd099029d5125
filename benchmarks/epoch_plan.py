"""Time and memory of an epoch's plan at the size of CION-AL: `python -m benchmarks.epoch_plan`."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np

from benchmarks.common import header, median_seconds, table
from cion_jax.data.groups import EpochPlan, Units
from cion_jax.data.records import Index

IMAGES, IDENTITIES = 3_898_086, 246_904
BATCH = 960


def _index() -> Index:
    extra = np.random.default_rng(0).multinomial(IMAGES - IDENTITIES, np.full(IDENTITIES, 1 / IDENTITIES))
    identity = np.repeat(np.arange(IDENTITIES), extra + 1)
    return Index(identity, np.arange(IMAGES) // 5)


def _peak_mib(build: Callable[[], object]) -> float:
    tracemalloc.start()
    kept = build()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del kept
    return peak / 2**20


def _row(index: Index, k: int) -> tuple:
    def build() -> EpochPlan:
        return EpochPlan(Units.of(index, "identity"), seed=0, epoch=3, k=k)

    plan = build()
    one = median_seconds(lambda: plan.group(7), 100)
    batch = median_seconds(lambda: plan.groups(slice(0, BATCH // k)))
    seconds, peak = median_seconds(build), _peak_mib(build)
    return k, len(plan), f"{seconds:.2f}", f"{peak:.0f}", f"{one * 1e6:.0f}", f"{batch * 1e3:.2f}"


def main() -> None:
    header(f"epoch plan: {IMAGES} images, {IDENTITIES} identities")
    index = _index()
    columns = ["K", "groups", "build s", "peak MiB", "one group us", f"groups of {BATCH} images ms"]
    table(columns, [_row(index, k) for k in (2, 4, 8)])


if __name__ == "__main__":
    main()

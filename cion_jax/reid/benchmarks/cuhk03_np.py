"""CUHK03 by the new protocol of Zhong et al., CVPR 2017: 700 people, labeled or detected boxes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cion_jax.reid.benchmarks.base import REGISTRY, RULES, Benchmark, Reader, named

EXAMPLE = "0001_c1_01.png"


def read(folder: Path, *, boxes: str) -> Benchmark:
    """Reads the folder that holds `query` and `bounding_box_test`, or that of both kinds of boxes."""
    folder = folder / boxes if (folder / boxes).is_dir() else folder
    query, gallery = named(folder / "query", EXAMPLE), named(folder / "bounding_box_test", EXAMPLE)
    return Benchmark(f"cuhk03_np_{boxes}", f"{RULES}; new protocol, {boxes} boxes", query, gallery, boxes)


for _boxes in ("labeled", "detected"):
    REGISTRY.register(f"cuhk03_np_{_boxes}", Reader(partial(read, boxes=_boxes)))

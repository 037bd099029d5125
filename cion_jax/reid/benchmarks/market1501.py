"""Market-1501: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015.

Any folder with its layout and file names can be read as one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cion_jax.reid.benchmarks.base import (
    DISTRACTOR,
    REGISTRY,
    RULES,
    Benchmark,
    BenchmarkError,
    Images,
    Reader,
    images_in,
    named,
)

EXAMPLE = "0002_c1s1_000451_03.jpg"
_DISTRACTORS = ("distractors", "distractors_500k", "images")  # as people unpack the archive of 500,000


def read(folder: Path) -> Benchmark:
    """Reads a folder that holds `query` and `bounding_box_test`."""
    query, gallery = named(folder / "query", EXAMPLE), named(folder / "bounding_box_test", EXAMPLE)
    return Benchmark("market1501", RULES, query, gallery)


def read_with_distractors(folder: Path) -> Benchmark:
    """The same with the further distractors, whatever they are called; nobody on them is a query."""
    plain = read(folder)
    places = [folder / name for name in _DISTRACTORS if (folder / name).is_dir()]
    if not places:
        raise BenchmarkError(f"no distractors in {folder}; expected a folder {' or '.join(_DISTRACTORS)} beside query")
    more = tuple(images_in(places[0], "distractors, of any name"))
    gallery = Images(
        plain.gallery.paths + more,
        np.append(plain.gallery.identity, np.full(len(more), DISTRACTOR)),
        np.append(plain.gallery.camera, np.zeros(len(more), np.int64)),
        None,
        plain.gallery.junk,
        plain.gallery.unnamed,
    )
    protocol = f"{RULES}; {len(more):,} further distractors in the gallery"
    return dataclasses.replace(plain, name="market1501_500k", protocol=protocol, gallery=gallery)


REGISTRY.register("market1501", Reader(read))
REGISTRY.register("market1501_500k", Reader(read_with_distractors))

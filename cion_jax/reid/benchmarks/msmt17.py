"""MSMT17, V1 and V2: Wei et al., "Person Transfer GAN to Bridge Domain Gap", CVPR 2018.

Lists beside the image folders say who is a query; their lines are `0000/0000_000_01_0303morning_0015_0.jpg 0`: path
and identity. The camera is the third part of the name. Identities count from 0, and there are no distractors.
"""

from __future__ import annotations

import re
from pathlib import Path

from cion_jax.common.files import read_text
from cion_jax.reid.benchmarks.base import REGISTRY, Benchmark, BenchmarkError, Images, Reader, kept, listed

NAME = re.compile(r"\d+_\d+_(?P<cam>\d+)_\w+(\.\w+)+")
EXAMPLE = "0000/0000_000_01_0303morning_0015_0.jpg 0"
_TESTS = ("test", "mask_test_v2")  # V1, V2
_PROTOCOLS = {"train": "training on the train list alone", "trainval": "training on the train and val lists"}


def read(folder: Path, *, protocol: str = "trainval") -> Benchmark:
    """Reads a folder that holds the lists, and `test` (V1) or `mask_test_v2` (V2).

    Args:
      folder: as unpacked.
      protocol: which images the scored model was trained on; it changes no image here, but belongs beside the number.
    """
    places = [place for place in _TESTS if (folder / place).is_dir()]
    if not places:
        there = listed(sorted(folder.iterdir())) if folder.is_dir() else "no such folder"
        raise BenchmarkError(f"no {' or '.join(_TESTS)} in {folder}; expected MSMT17 as unpacked, got: {there}")
    query, gallery = (_images(folder, places[0], part) for part in ("query", "gallery"))
    rules = (
        "single query; gallery images of the query's identity and camera removed per query; queries without a "
        f"remaining match not counted; {_PROTOCOLS[protocol]}"
    )
    return Benchmark("msmt17", rules, query, gallery, protocol)


def _images(folder: Path, place: str, part: str) -> Images:
    file = folder / f"list_{part}.txt"
    if not file.is_file():
        raise BenchmarkError(f"no list {file}; expected lines like {EXAMPLE}")
    found, wrong = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        path, _, identity = line.strip().rpartition(" ")
        match = NAME.fullmatch(Path(path).name)
        if match and identity.isdigit():
            # One more: identity 0 is a person here.
            found.append((folder / place / path, int(identity) + 1, int(match["cam"])))
        elif line.strip():
            wrong.append(f"line {number}: {line!r}")
    if wrong:
        raise BenchmarkError(f"{file} has {len(wrong)} lines unlike {EXAMPLE}: {listed(wrong)}")
    missing = [path for path, _, _ in found if not path.is_file()]
    if missing:
        raise BenchmarkError(f"{len(missing)} of {len(found)} files of {file} are not there, the first: {missing[0]}")
    return kept(found, (), str(file))


REGISTRY.register("msmt17", Reader(read, {"protocol": tuple(_PROTOCOLS)}))

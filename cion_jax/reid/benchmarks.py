"""Benchmarks: which images are queries, which are the gallery, who is on them and which camera took them.

Market-1501 is Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015. Any folder with its
layout and file names can be read as one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cion_jax.common import crop_names, typed_config
from cion_jax.common.errors import UserError
from cion_jax.common.files import walk
from cion_jax.common.images import SUFFIXES

_LISTED = 5  # names in a message


class BenchmarkError(UserError):
    """A folder that cannot be read as the benchmark."""


@dataclass(frozen=True)
class Images:
    """Queries or gallery.

    Attributes:
      paths: N image files, sorted by name.
      identity: [N] int64; 0 is a distractor.
      camera: [N] int64.
      junk: how many files the benchmark itself marks as junk; they are not among the images.
      unnamed: image files whose names say nothing; they are not among the images either.
    """

    paths: tuple[Path, ...]
    identity: np.ndarray
    camera: np.ndarray
    junk: int = 0
    unnamed: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, kept: np.ndarray) -> Images:
        """Those images for which the [N] bool is true."""
        paths = tuple(path for path, keep in zip(self.paths, kept, strict=True) if keep)
        return dataclasses.replace(self, paths=paths, identity=self.identity[kept], camera=self.camera[kept])


@dataclass(frozen=True)
class Benchmark:
    """A set of queries and the gallery to find them in.

    Attributes:
      name: as given on the command line.
      protocol: what a reader of the numbers has to know.
    """

    name: str
    protocol: str
    query: Images
    gallery: Images

    def warnings(self) -> list[str]:
        """One line for each part in which files had to be left out."""
        parts = {"query": self.query, "gallery": self.gallery}
        return [_unnamed(name, images.unnamed) for name, images in parts.items() if images.unnamed]


def load(name: str, folder: Path) -> Benchmark:
    """Lists a benchmark's images without opening them.

    Raises:
      BenchmarkError: an unknown benchmark, a missing folder, or a folder without any image that can be used.
    """
    if name not in _LOADERS:
        raise BenchmarkError(typed_config.unknown(f"benchmark {name!r}", name, _LOADERS))
    return _LOADERS[name](Path(folder))


def market1501(folder: Path) -> Benchmark:
    """Reads a folder that holds ``query`` and ``bounding_box_test`` with crops named as `crop_names` lists them.

    Crops may lie in a folder per person.
    """
    return Benchmark(
        name="market1501",
        protocol="single query; id -1 left out, id 0 stays in the gallery as distractor; gallery images of "
        "the query's identity and camera removed per query; queries without a remaining match not counted",
        query=_market_images(folder / "query"),
        gallery=_market_images(folder / "bounding_box_test"),
    )


_LOADERS = {"market1501": market1501}


def _market_images(folder: Path) -> Images:
    if not folder.is_dir():
        raise BenchmarkError(
            f"no folder {folder}; expected a Market-1501 folder that holds query and bounding_box_test, "
            "give it as --data=DIR"
        )
    inside = sorted(walk(folder, depth=2), key=lambda path: path.name)  # people may have folders of their own
    files = [path for path in inside if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    named = [(path, said) for path in files if (said := crop_names.parse(path.name))]
    unnamed = tuple(path for path in files if not crop_names.parse(path.name))
    used = [(path, said.person, said.camera) for path, said in named if said.person != crop_names.JUNK]
    if not used:
        reason = _unnamed("", unnamed) if unnamed else f"got {len(files)} images, {len(named)} of them junk (id -1)"
        raise BenchmarkError(f"no image to use in {folder}: {reason}")
    paths, identity, camera = zip(*used, strict=True)
    return Images(paths, np.array(identity), np.array(camera), len(named) - len(used), unnamed)


def _unnamed(part: str, paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")
    return f"{part}: {len(paths)} files left out, not named like 0002_c1s1_000451_03.jpg: {names}".lstrip(": ")

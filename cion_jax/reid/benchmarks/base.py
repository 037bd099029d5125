"""What a benchmark is, and the way from files to one that can be scored, or to a message that shows what was read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cion_jax.common import crop_names
from cion_jax.common.errors import UserError
from cion_jax.common.files import walk
from cion_jax.common.images import SUFFIXES
from cion_jax.common.registry import Registry

JUNK = -1  # crops of nobody, or bad ones of somebody
DISTRACTOR = 0
RULES = (
    "single query; id -1 left out, id 0 stays in the gallery as distractor; gallery images of the query's identity and "
    "camera removed per query; queries without a remaining match not counted"
)
_TABLES = ("*.csv", "*.txt", "info/*.txt", "info/*.mat")
_LISTED = 5  # names in a message


class BenchmarkError(UserError):
    """A folder that cannot be read as the benchmark."""


@dataclass(frozen=True)
class Images:
    """Queries or gallery: U units, each one image or, where `unit` says so, a tracklet of several.

    Attributes:
      paths: N image files.
      identity: [U] int64; 0 is a distractor.
      camera: [U] int64.
      unit: [N] int64, which unit a file belongs to; None where every file is one.
      junk: how many units the benchmark itself marks as junk; they are not among these.
      unnamed: image files whose names say nothing; they are not among the images either.
    """

    paths: tuple[Path, ...]
    identity: np.ndarray
    camera: np.ndarray
    unit: np.ndarray | None = None
    junk: int = 0
    unnamed: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.identity)

    def take(self, kept: np.ndarray) -> Images:
        """What is left of the units with those images only for which the [N] bool is true."""
        paths = tuple(path for path, keep in zip(self.paths, kept, strict=True) if keep)
        if self.unit is None:
            return dataclasses.replace(self, paths=paths, identity=self.identity[kept], camera=self.camera[kept])
        some, unit = np.unique(self.unit[kept], return_inverse=True)
        return dataclasses.replace(self, paths=paths, identity=self.identity[some], camera=self.camera[some], unit=unit)

    def camera_of_images(self) -> np.ndarray:
        """[N] int64 camera of every file."""
        return self.camera if self.unit is None else self.camera[self.unit]

    def pooled(self, features_ND: np.ndarray) -> np.ndarray:
        """[U, D] features of units: of a tracklet the mean of its images'."""
        if self.unit is None:
            return features_ND
        total_UD = np.zeros((len(self), features_ND.shape[1]), features_ND.dtype)
        np.add.at(total_UD, self.unit, features_ND)
        return total_UD / np.bincount(self.unit, minlength=len(self))[:, None].astype(features_ND.dtype)


@dataclass(frozen=True)
class Benchmark:
    """A set of queries and the gallery to find them in.

    Attributes:
      name: as given on the command line.
      protocol: what a reader of the numbers has to know.
      query, gallery: who is looked for, and where.
      label: short name of a choice within the protocol that belongs beside every number; empty where there is none.
    """

    name: str
    protocol: str
    query: Images
    gallery: Images
    label: str = ""

    def warnings(self) -> list[str]:
        """One line for each part in which files had to be left out."""
        parts = {"query": self.query, "gallery": self.gallery}
        return [
            f"{name}: {len(images.unnamed)} files left out, their names are of no known form: {listed(images.unnamed)}"
            for name, images in parts.items()
            if images.unnamed
        ]


@dataclass(frozen=True)
class Reader:
    """How a benchmark is read.

    Attributes:
      read: takes the folder, and the options in `takes` as keywords.
      takes: names of options (`protocol`, `pattern`) and what they may be; nothing means any text.
    """

    read: Callable[..., Benchmark]
    takes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


REGISTRY: Registry[Reader] = Registry("benchmark", "cion_jax.reid.benchmarks", "benchmarks")


def load(name: str, folder: Path, **options: str | None) -> Benchmark:
    """Lists a benchmark's images without opening them.

    Args:
      name: one of `REGISTRY`; an unknown one is a ConfigError.
      folder: as it was unpacked.
      options: `protocol`, `pattern`; None where not given.

    Raises:
      BenchmarkError: an option that this benchmark does not have, a missing folder or list, names that do not say who
        and where, no image that can be used, or no query that could be found.
    """
    reader = REGISTRY[name]
    given = {key: value for key, value in options.items() if value is not None}
    for key, value in given.items():
        choices = reader.takes.get(key)
        if choices is None:
            raise BenchmarkError(f"{name} has no --{key}, got {value!r}; leave it out")
        if choices and value not in choices:
            raise BenchmarkError(f"--{key} of {name} is one of {', '.join(choices)}, got {value!r}")
    benchmark = reader.read(Path(folder), **given)
    _check(benchmark)
    return benchmark


def tables(folder: Path) -> list[Path]:
    """Lists and tables of a benchmark, which are read as its images are."""
    return [path for kind in _TABLES for path in sorted(folder.glob(kind))]


def named(folder: Path, example: str) -> Images:
    """The images of a folder whose names say identity and camera in one of the forms of `crop_names`.

    Args:
      folder: people may have folders of their own in it.
      example: a name as it should be, for messages.
    """
    read = [(path, crop_names.parse(path.name)) for path in images_in(folder, example, depth=2)]
    found = [(path, said.person, said.camera) for path, said in read if said]
    unnamed = tuple(path for path, said in read if not said)
    return kept(found, unnamed, f"{folder}, where names are expected like {example}")


def kept(found: Sequence[tuple[Path, int, int]], unnamed: Sequence[Path], where: str) -> Images:
    """Images of (path, identity, camera), without junk; raises BenchmarkError if none is left."""
    used = [each for each in found if each[1] != JUNK]
    if not used:
        other = f" and {len(unnamed)} of no known form: {listed(unnamed)}" if unnamed else ""
        raise BenchmarkError(f"no image to use in {where}: got {len(found)} named images, all junk (id -1){other}")
    paths, identity, camera = zip(*used, strict=True)
    return Images(paths, np.array(identity), np.array(camera), None, len(found) - len(used), tuple(unnamed))


def images_in(folder: Path, expected: str, depth: int = 1) -> list[Path]:
    """Image files in `depth` levels of folders, sorted by name; raises BenchmarkError where there are none."""
    if not folder.is_dir():
        raise BenchmarkError(f"no folder {folder}; expected one with images like {expected}{_beside(folder)}")
    inside = sorted(walk(folder, depth), key=lambda path: path.name)
    files = [path for path in inside if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    if not files:
        raise BenchmarkError(f"no image in {folder}; expected some like {expected}, in {', '.join(SUFFIXES)}")
    return files


def listed(paths: Iterable[Path | str]) -> str:
    """The first few names, for a message."""
    names = [path.name if isinstance(path, Path) else path for path in paths]
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _beside(folder: Path) -> str:
    if not folder.parent.is_dir():
        return f"; there is no {folder.parent} either"
    return f"; {folder.parent} holds {listed(sorted(folder.parent.iterdir())) or 'nothing'}"


def _check(benchmark: Benchmark) -> None:
    """Raises where no query could ever be found, showing what was read."""
    query, gallery = benchmark.query, benchmark.gallery
    there = set(gallery.identity.tolist()) - {DISTRACTOR}
    if not there & set(query.identity.tolist()):
        raise BenchmarkError(
            f"{benchmark.name}: no identity of the queries is in the gallery; read identities {_few(query.identity)} "
            f"in {len(query)} queries (first: {query.paths[0].name}) and {_few(gallery.identity)} in {len(gallery)} "
            f"gallery images (first: {gallery.paths[0].name}); check the folders, the pattern, and that both number "
            "people alike"
        )
    pairs = set(zip(gallery.identity.tolist(), gallery.camera.tolist(), strict=True))
    cameras: dict[int, set[int]] = {}
    for identity, camera in pairs:
        cameras.setdefault(identity, set()).add(camera)
    who = zip(query.identity.tolist(), query.camera.tolist(), strict=True)
    if not any(cameras.get(identity, set()) - {camera} for identity, camera in who):
        raise BenchmarkError(
            f"{benchmark.name}: no query has a match of another camera; read cameras {_few(query.camera)} in the "
            f"queries (first: {query.paths[0].name}) and {_few(gallery.camera)} in the gallery (first: "
            f"{gallery.paths[0].name}); matches of the query's own camera do not count"
        )


def _few(numbers: np.ndarray) -> str:
    return listed([str(number) for number in np.unique(numbers)])

"""Pseudo labels of an epoch: methods by name, and the file that they lie in."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.common.errors import UserError
from cion_jax.common.files import finished, read_regular
from cion_jax.common.registry import Registry
from cion_jax.neighbors import jaccard
from cion_jax.neighbors.dbscan import dbscan
from cion_jax.neighbors.labels import numbered
from cion_jax.tasks.cluster import shared_neighbors
from cion_jax.tasks.cluster.config import LabelsConfig
from cion_jax.training.checkpoint import CheckpointError

FOLDER = "labels"  # in the run's folder


@dataclass(frozen=True, eq=False)
class Sightings:
    """What a method sees of the images, N of them.

    Attributes:
      features: [N, D] float32 of unit length.
      camera, video, frame: [N] int64, see `data.target.Target`.
    """

    features: np.ndarray
    camera: np.ndarray
    video: np.ndarray
    frame: np.ndarray


class Method(NamedTuple):
    """A way to cluster.

    Attributes:
      find: f(sightings, settings) -> [N] int64 clusters, any numbers from 0 on; -1: an outlier.
      if_none: what to set where there is no cluster.
      if_one: what to set where all is one.
    """

    find: Callable[[Sightings, LabelsConfig], np.ndarray]
    if_none: str
    if_one: str


PSEUDO_LABELS: Registry[Method] = Registry("method of pseudo labels", "cion_jax.tasks.cluster.labels", "pseudo_labels")


def clusters(seen: Sightings, settings: LabelsConfig) -> np.ndarray:
    """[N] int64 clusters, numbered by their first image; -1: an outlier, of no cluster or alone in one."""
    found = np.full(len(seen.features), -1)
    readable = np.flatnonzero(np.square(seen.features).sum(1) > 0)
    if len(readable):
        some = Sightings(*(array[readable] for array in (seen.features, seen.camera, seen.video, seen.frame)))
        found[readable] = PSEUDO_LABELS[settings.method].find(some, settings)
    several = np.bincount(found + 1)[found + 1] > 1
    found[~several] = -1
    inside = found >= 0
    found[inside] = numbered(found[inside])
    return found


def by_dbscan(seen: Sightings, settings: LabelsConfig) -> np.ndarray:
    """The released recipe: DBSCAN on the Jaccard distance of k-reciprocal neighbors."""
    own = settings.dbscan
    if len(seen.features) <= own.k1:
        raise UserError(
            f"{len(seen.features)} images, and config.labels.dbscan.k1={own.k1} neighbors of each; give more images or "
            f"a k1 of at most {len(seen.features) - 1}"
        )
    apart = jaccard.distances(seen.features, own.k1, own.k2, largest=own.eps, exact=settings.search.exact_rows)
    return dbscan(apart, own.eps, own.min_samples)


def by_shared_neighbors(seen: Sightings, settings: LabelsConfig) -> np.ndarray:
    """Average linkage of shared neighborhoods, with cameras and moments where they are known."""
    own = settings.shared_neighbors
    return shared_neighbors.clusters(seen.features, seen.camera, seen.video, seen.frame, own, settings.search)


PSEUDO_LABELS.register(
    "shared_neighbors",
    Method(
        by_shared_neighbors,
        "set a lower config.labels.shared_neighbors.threshold, or lower min_images, or start from weights "
        "(config.init_from)",
        "set a higher config.labels.shared_neighbors.threshold, or start from weights (config.init_from)",
    ),
)
PSEUDO_LABELS.register(
    "dbscan",
    Method(
        by_dbscan,
        "raise config.labels.dbscan.eps, or lower min_samples, or start from weights (config.init_from)",
        "lower config.labels.dbscan.eps, or start from weights (config.init_from)",
    ),
)


def write(workdir: Path, epoch: int, label: np.ndarray) -> None:
    """Puts an epoch's labels [N] into the run's folder."""
    path = _path(workdir, epoch)
    path.parent.mkdir(exist_ok=True)
    with finished(path) as part, part.open("wb") as file:
        np.savez_compressed(file, label=label.astype("<i4"))


def read(workdir: Path, epoch: int) -> np.ndarray | None:
    """An epoch's labels [N] int64; None where there are none that can be read."""
    try:
        with np.load(io.BytesIO(read_regular(_path(workdir, epoch))), allow_pickle=False) as archive:
            return archive["label"].astype(np.int64)
    except (OSError, ValueError, LookupError, zipfile.BadZipFile, zlib.error):
        return None


def read_again(workdir: Path, epoch: int, expected: str, count: int) -> np.ndarray:
    """The labels [count] that a checkpoint within an epoch was trained on.

    Args:
      workdir: of the run.
      epoch: that goes on.
      expected: their digest, as the checkpoint has it.
      count: of images.

    Raises:
      CheckpointError: they are not there, or others.
    """
    label = read(workdir, epoch)
    if label is None or len(label) != count or digest(label) != expected:
        state = "missing or damaged" if label is None else "not those that its checkpoint was trained on"
        raise CheckpointError(
            f"the labels of epoch {epoch}, {_path(workdir, epoch)}, are {state}; put the file back, delete the "
            "checkpoints of that epoch to begin it anew, or give another --workdir"
        )
    return label


def digest(label: np.ndarray) -> str:
    """SHA-256 of labels [N]."""
    return hashlib.sha256(label.astype("<i4").tobytes()).hexdigest()


def _path(workdir: Path, epoch: int) -> Path:
    return workdir / FOLDER / f"epoch_{epoch:04}.npz"

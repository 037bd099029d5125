"""What unlabeled tracklets teach about features, as one small file: camera means, and the spread within tracklets.

A safetensors file of `means` [C + 1, d] (the last of all images), `matrix` [d, d] (left out where nothing varies
within tracklets) and, as metadata, the cameras' names and where it comes from, with a digest of all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from cion_jax.common.errors import UserError
from cion_jax.common.files import finished, read_regular
from cion_jax.common.printable import printable
from cion_jax.neighbors import normalization
from cion_jax.neighbors.cosine import unit
from cion_jax.neighbors.normalization import Normalization

SUFFIX, KIND = ".safetensors", "cion_jax adaptation 1"
SHRINKAGE = 3.0  # see `normalization.learn`; what data_prep denoises with
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError)


class AdaptationError(UserError):
    """An adaptation that is damaged, or was learned from other features than it is used on."""


@dataclass(frozen=True)
class Learned:
    """Where an adaptation comes from.

    Attributes:
      data: name of the unlabeled data.
      images, tracklets: that were learned from.
      model: whose features these were.
      extractor: digest of what made them; empty where that is not known.
      shrinkage: see `normalization.learn`.
    """

    data: str
    images: int
    tracklets: int
    model: str
    extractor: str
    shrinkage: float = SHRINKAGE


@dataclass(frozen=True)
class Adaptation:
    """Makes features of several cameras comparable.

    Attributes:
      cameras: C names, sorted.
      normalization: of their features, in this order.
      learned: from what.
      own_means: images lose the mean of those that they are adapted together with and share the camera with, and not
        the one that was learned. What a feature becomes then depends on the other images: a test set's own statistics.
    """

    cameras: tuple[str, ...]
    normalization: Normalization
    learned: Learned
    own_means: bool = False

    @property
    def features(self) -> int:
        """d, the width of features that it takes and gives."""
        return self.normalization.means.shape[1]

    def digest(self) -> str:
        """SHA-256 of numbers, cameras and origin."""
        found = hashlib.sha256(json.dumps([KIND, self.cameras, dataclasses.asdict(self.learned)]).encode())
        for name, array in sorted(_arrays(self.normalization).items()):
            found.update(f"{name} {array.shape}".encode())
            found.update(np.ascontiguousarray(array, "<f4").tobytes())
        return found.hexdigest()

    def groups(self, camera: Sequence[str]) -> np.ndarray:
        """[n] int64 numbers of cameras, -1 for one that was not learned from."""
        number = {name: i for i, name in enumerate(self.cameras)}
        return np.array([number.get(name, -1) for name in camera], np.int64)

    def unseen(self, camera: Sequence[str]) -> int:
        """How many of these images are of cameras whose mean is not known; 0 with `own_means`."""
        return 0 if self.own_means else int((self.groups(camera) < 0).sum())

    def __call__(self, features_ND: np.ndarray, camera: Sequence[str]) -> np.ndarray:
        """Adapts features.

        Args:
          features_ND: float32 of any length, finite.
          camera: N names; images of a camera that was not learned from lose the mean over all.

        Returns:
          [N, d] float32 of length 1.

        Raises:
          AdaptationError: another width.
        """
        self.check(features_ND.shape[1])
        rows_ND, group, normalization = (
            unit(features_ND, np.float32, 0),
            self.groups(camera),
            self.normalization,
        )
        if self.own_means:
            group = np.unique(np.asarray(camera), return_inverse=True)[1]
            normalization = normalization.with_means_of(rows_ND, group)
        return normalization(rows_ND, group)

    def check(self, features: int, extractor: str = "") -> None:
        """Raises AdaptationError where features are of another width, or of an extractor with another digest."""
        if features != self.features:
            raise AdaptationError(
                f"the adaptation was learned from {self.features} features of {self.learned.model}, got {features} "
                "features; learn it from features of the same network"
            )
        if extractor and self.learned.extractor and extractor != self.learned.extractor:
            raise AdaptationError(
                f"the adaptation was learned from features of {self.learned.model} with digest "
                f"{self.learned.extractor[:12]}, the features are of one with digest {extractor[:12]}; weights, input "
                "size or step differ, so learn it again"
            )

    def about(self) -> dict[str, Any]:
        """What has to be said wherever its results are shown, as JSON."""
        origin = dataclasses.asdict(self.learned)
        return {**origin, "cameras": len(self.cameras), "own_means": self.own_means, "digest": self.digest()}

    def told(self) -> str:
        """The same in a few words."""
        means = "their own" if self.own_means else f"those of {len(self.cameras)} cameras"
        return f"adapted to {self.learned.data} ({self.learned.tracklets:,} tracklets; camera means: {means})"


def learn(
    features_ND: np.ndarray, camera: Sequence[str], tracklet: np.ndarray, learned: Mapping[str, Any]
) -> Adaptation:
    """Learns from unlabeled images.

    Args:
      features_ND: float32 of any length, finite.
      camera: N names.
      tracklet: [N] int64.
      learned: fields of `Learned` that the other arguments do not tell.
    """
    names, group = np.unique(np.asarray(camera, np.str_), return_inverse=True)
    _, number = np.unique(tracklet, return_inverse=True)
    origin = Learned(images=len(number), tracklets=int(number.max(initial=-1)) + 1, **learned)
    found = normalization.learn(unit(features_ND, np.float32, 0), group, number, origin.shrinkage)
    return Adaptation(tuple(names.tolist()), found, origin)


def save(path: Path, adaptation: Adaptation) -> None:
    """Writes a file that `load` reads, complete or not at all."""
    texts = {"kind": KIND, "digest": adaptation.digest(), "cameras": json.dumps(adaptation.cameras)}
    texts["learned"] = json.dumps(dataclasses.asdict(adaptation.learned))
    with finished(path) as part:
        part.write_bytes(safetensors.numpy.save(_arrays(adaptation.normalization), texts))


def is_adaptation(path: Path) -> bool:
    """Whether a file says that it is one."""
    if not path.is_file():
        return False
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return str((file.metadata() or {}).get("kind", "")).startswith("cion_jax adaptation")
    except (OSError, safetensors.SafetensorError):
        return False


def load(path: Path) -> Adaptation:
    """Reads a file of `save`; raises AdaptationError where it is none, or not what was written."""
    try:
        data = read_regular(path)
        arrays = safetensors.numpy.load(data)
        with safetensors.safe_open(path, "numpy") as file:
            texts = file.metadata() or {}
        if texts.get("kind") != KIND:
            raise ValueError(f"it says to be {texts.get('kind')!r}, expected {KIND!r}")
        found = Adaptation(
            tuple(json.loads(texts["cameras"])),
            Normalization(arrays["means"], arrays.get("matrix")),
            Learned(**json.loads(texts["learned"])),
        )
        _check_shapes(found)
        if found.digest() != texts["digest"]:
            raise ValueError("its numbers or names are not those that were written: the digest differs")
    except _DAMAGED as error:
        raise AdaptationError(
            f"{path} is no adaptation that can be used: {printable(error)}; learn it again with --adapt=DATA "
            "--adapt_output=FILE"
        ) from error
    return found


def verify(path: Path) -> tuple[str, list[str]]:
    """(what was looked at, what is damaged: a line each)."""
    try:
        found = load(path)
    except AdaptationError as error:
        return "it cannot be used", [str(error)]
    return f"an adaptation: {len(found.cameras):,} cameras, {found.features:,} features, digest as written", []


def _arrays(found: Normalization) -> dict[str, np.ndarray]:
    return {"means": found.means} | ({} if found.matrix is None else {"matrix": found.matrix})


def _check_shapes(found: Adaptation) -> None:
    """Raises ValueError where arrays do not fit each other, or hold what is no number."""
    arrays = _arrays(found.normalization)
    d = arrays["means"].shape[-1]
    expected = {"means": (len(found.cameras) + 1, d), "matrix": (d, d)}
    for name, array in arrays.items():
        if array.shape != expected[name] or array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected float32 {expected[name]}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")

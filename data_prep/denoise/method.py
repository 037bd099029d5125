"""A denoising method: what finds identities. Two are here, other packages may add theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cion_jax.common.registry import Registry
from cion_jax.neighbors.linkage import Pairs
from data_prep.denoise.certificate import Certificate
from data_prep.denoise.levels import Levels
from data_prep.denoise.settings import Denoising, Thresholds


@dataclass(frozen=True)
class Clustering:
    """One clustering of a whole data set, and what its threshold is seen against.

    Attributes:
      identity: [n] int64 of everything that was clustered, numbered by the first.
      threshold: least mean similarity of two groups that merge.
      same: [S] for what shares its tracklet with others, the similarity with the nearest of them.
      other: [S] similarities of what co-occurs.
      certificate: how right it is, estimated; None where that was not asked for or not possible.
      applied: False where the estimate says that the tracklets of the input are better: these are the identities then.
      confidence: [n] estimated probability that a pair with another of its identity is right, 1 for what is alone;
        None without a certificate.
    """

    identity: np.ndarray
    threshold: float
    same: np.ndarray
    other: np.ndarray
    certificate: Certificate | None = None
    applied: bool = True
    confidence: np.ndarray | None = None


class DataSet(Protocol):
    """What a method sees of N images: video by video, those of a tracklet together, in time order."""

    @property
    def tracklet(self) -> np.ndarray:
        """[N] int64, numbered over the data set."""
        ...

    @property
    def has_box(self) -> np.ndarray:
        """[N] bool: where in the frame the image is, is known."""
        ...

    @property
    def width(self) -> int:
        """How many features an image has."""
        ...

    def room(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """An array of zeros; one larger than memory should hold lies on disk."""
        ...

    @property
    def videos(self) -> Sequence[str]:
        """Keys of all videos."""
        ...

    def span(self, video: int) -> tuple[int, int, int]:
        """First row, end row and first tracklet of a video, by its number."""
        ...

    def kept(self, video: int, kind: str) -> Mapping[str, np.ndarray]:
        """What `Method.one_video` left of a video, by its number."""
        ...

    def cannot_link(self, group: np.ndarray) -> Pairs:
        """Distinct pairs i < j of groups, where `group` [N] has an image's group or -1, that co-occur."""
        ...


class Labeling(Protocol):
    """The identities that a method finds in one data set."""

    @property
    def clustering(self) -> Clustering | None:
        """The clustering where there is one; None: nothing but `Thresholds` decides."""
        ...

    @property
    def confidence(self) -> np.ndarray | None:
        """[N] of every image, see `Clustering`; None where it is not estimated."""
        ...

    def levels(self, video: int, features: np.ndarray) -> Levels:
        """What levels 1 and 2 do with a video; tracklets and identities numbered within it.

        Args:
          video: its number.
          features: [m, d] of its images.
        """
        ...

    def identities(self, levels: Levels, means: np.ndarray) -> np.ndarray:
        """[N] int64 identities after level 3, -1: none.

        Args:
          levels: of all videos, tracklets and identities numbered over the data set.
          means: [M, d] centroids of the identities of level 2.
        """
        ...


class Method(Protocol):
    """One way to find identities.

    Attributes:
      options: settings of `Denoising` that not every method has, and this one has: "normalize", "r_s".
      decides: by level ("level1", "level2"), the name of the threshold that decides there.
      caveats: lines of Markdown for the data card, what is peculiar to identities that were found this way.
      stage: of the progress line while `one_video` goes over the videos.
      keeps: kind of the file that holds what `one_video` returns.
    """

    options: frozenset[str]
    decides: Mapping[str, str]
    caveats: str
    stage: str
    keeps: str

    def one_video(
        self,
        features: np.ndarray,
        tracklet: np.ndarray,
        cannot: Callable[[], Pairs],
        settings: Denoising,
        thresholds: Thresholds,
    ) -> Mapping[str, np.ndarray]:
        """What can be done before all videos are known; its arrays are kept.

        Args:
          features: [m, d] of one video, none of them 0.
          tracklet: [m] int64, 0, .., 0, 1, .., 1, 2, ...: the images of a tracklet lie together, in time order.
          cannot: gives pairs of images that cannot show one person; none unless `settings.cannot_link`.
          settings: in force.
          thresholds: in force.
        """
        ...

    def all_videos(self, data: DataSet, settings: Denoising, thresholds: Thresholds) -> Labeling:
        """Finds identities from what `one_video` left of every video."""
        ...


METHODS: Registry[Method] = Registry("denoising method", "data_prep.denoise", "denoising")

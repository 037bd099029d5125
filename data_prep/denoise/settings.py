"""What a denoising run depends on, beside its input: thresholds, and the numbers that methods and measures use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from cion_jax.common.bounds import COUNT, SHARE, between, positive
from cion_jax.neighbors import shared
from cion_jax.neighbors.normalization import TRUST


@dataclass(frozen=True)
class Thresholds:
    """What decides at the three levels of the published method, and what the noise is measured against.

    Attributes:
      sigma_cst: consistency threshold, a cosine distance in 0 .. 2.
      sigma_drm: discrimination threshold, a cosine distance in 0 .. 2.
      r_s: half width of the sliding range of level 3, in tracklets; 0: no range.
    """

    sigma_cst: float
    sigma_drm: float
    r_s: int


@dataclass(frozen=True)
class SharedNeighborSettings(shared.Settings):
    """Numbers of the method `shared_neighbors`; those of the clustering are `shared.Settings`.

    Attributes:
      short_tracklet: a tracklet of up to so many images is clustered image by image.
      sub_tracklets: a longer one is divided into so many before it is clustered, into more where it is more varied than
        the usual one of its video.
      shrinkage: how much of an even spread is mixed into the spread within tracklets before features are divided by
        it; more where little was seen of it (`normalize`).
      trust: how many times as sure of a video's mean as its number of tracklets says (`normalize`).
      certificate: estimate how right the identities are, without labels. Takes two more clusterings, and is left out,
        with a line in the log, beyond `search.exact_rows` sub-tracklets.
    """

    short_tracklet: Annotated[int, between(0, 10_000)] = 5
    sub_tracklets: Annotated[int, between(1, 10_000)] = 3
    shrinkage: Annotated[float, positive(10**6)] = 3.0
    trust: Annotated[float, positive(10**6)] = TRUST
    certificate: bool = True


@dataclass(frozen=True)
class CooccurrenceSettings:
    """When two tracklets count as co-occurring, so that they show two people.

    Attributes:
      min_frames: frames on which both must be; a single one may be owed to one stray image.
      max_iou: intersection over union of two boxes above which they are one person detected twice.
    """

    min_frames: Annotated[int, COUNT] = 2
    max_iou: Annotated[float, SHARE] = 0.5


@dataclass(frozen=True)
class CalibrationSettings:
    """How thresholds are estimated.

    Attributes:
      min_pairs: distances that a distribution must have before a threshold is read off it.
      false_links: share of the pairs of different people that may be within sigma_drm.
      max_distances: distances of a kind that are kept.
    """

    min_pairs: Annotated[int, COUNT] = 30
    false_links: Annotated[float, SHARE] = 1e-3
    max_distances: Annotated[int, COUNT] = 20_000


@dataclass(frozen=True)
class SearchSettings(shared.Search):
    """Up to which size everything is compared with everything, and what is done beyond; see also `shared.Search`.

    Attributes:
      neighbors: beyond `exact_rows`, links without a range are looked for among so many nearest.
      noise_sample: beyond that, identities that are compared with all others for the discrimination noise.
      group_sample: members of a larger group that one is compared with to say how near its nearest is.
    """

    neighbors: Annotated[int, COUNT] = 64
    noise_sample: Annotated[int, between(2, 10**9)] = 4096
    group_sample: Annotated[int, between(2, 10**9)] = 4096


DEFAULT_SEARCH = SearchSettings()


@dataclass(frozen=True)
class Denoising:
    """Everything in force that decides over identities, but the thresholds.

    Attributes:
      method: name of a `method.Method`.
      calibrate: thresholds that are not set are estimated from the data, without labels.
      cannot_link: tracklets that co-occur never become one identity, not even through a chain.
      normalize: features are made comparable across videos (`normalize`).
      r_s: see `Thresholds`.
      shared_neighbors, cooccurrence, calibration, search: see there.
    """

    method: str
    calibrate: bool
    cannot_link: bool
    normalize: bool
    r_s: int
    shared_neighbors: SharedNeighborSettings = field(default_factory=SharedNeighborSettings)
    cooccurrence: CooccurrenceSettings = field(default_factory=CooccurrenceSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

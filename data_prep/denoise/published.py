"""The published method: images leave their tracklet beyond sigma_cst, chains of centroids within sigma_drm are one.

Progressive multi-level denoising of the CION paper, eq. 4-7: level 1 in `single_tracklet`, level 2 in `single_video`,
level 3 in `cross_video`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from data_prep.denoise import cross_video, nearest_member, single_tracklet, single_video
from data_prep.denoise.levels import Levels
from data_prep.denoise.method import METHODS, DataSet
from data_prep.denoise.settings import DEFAULT_SEARCH, Denoising, SearchSettings, Thresholds


def levels(
    features: np.ndarray,
    tracklet: np.ndarray,
    sigma_cst: float,
    sigma_drm: float,
    cannot: Pairs = NO_PAIRS,
    search: SearchSettings = DEFAULT_SEARCH,
) -> Levels:
    """Levels 1 and 2 of one video.

    Args:
      features: [m, d], none of them 0.
      tracklet: [m] int64, 0, .., 0, 1, .., 1, 2, ...: the images of a tracklet lie together, in time order.
      sigma_cst: consistency threshold, a cosine distance.
      sigma_drm: discrimination threshold, a cosine distance.
      cannot: images whose tracklets must not become one identity.
      search: in force.
    """
    starts = np.flatnonzero(np.diff(tracklet)) + 1
    cleaned = [single_tracklet.clean(x, sigma_cst) for x in np.split(features, starts)]
    rounds = np.concatenate([c.round for c in cleaned])
    moved, nearest = single_video.reassign(features, tracklet, rounds == 0, sigma_cst)
    identity = single_video.merge(features, moved, sigma_drm, cannot, search)
    joined = nearest_member.within_video(features, moved, identity, search.group_sample)
    return Levels(rounds, np.concatenate([c.distance for c in cleaned]), moved, nearest, identity, joined)


class Published:
    """See the module; the method of the paper, with cannot-link and calibration as options beside it."""

    options = frozenset({"r_s"})
    decides: Mapping[str, str] = {"level1": "sigma_cst", "level2": "sigma_drm"}
    caveats = """- Chains of links can join tracklets that are far apart themselves; nothing splits them again.
- A person whose videos lie far apart in the order of all, more than r_s tracklets (0: no range), is joined only through
  others.
"""
    stage, keeps = "levels 1 and 2", "levels"

    def one_video(
        self,
        features: np.ndarray,
        tracklet: np.ndarray,
        cannot: Callable[[], Pairs],
        settings: Denoising,
        thresholds: Thresholds,
    ) -> Mapping[str, np.ndarray]:
        """Levels 1 and 2."""
        found = levels(features, tracklet, thresholds.sigma_cst, thresholds.sigma_drm, cannot(), settings.search)
        return asdict(found)

    def all_videos(self, data: DataSet, settings: Denoising, thresholds: Thresholds) -> Linked:
        """Level 3."""
        return Linked(data, settings, thresholds)


@dataclass(frozen=True)
class Linked:
    """Identities by chains of links; a `method.Labeling`."""

    data: DataSet
    settings: Denoising
    thresholds: Thresholds
    clustering = None
    confidence = None

    def levels(self, video: int, features: np.ndarray) -> Levels:
        """What was kept of the video."""
        return Levels(**self.data.kept(video, Published.keeps))

    def identities(self, levels: Levels, means: np.ndarray) -> np.ndarray:
        """Links the identities of level 2 within the sliding range."""
        cannot = self.data.cannot_link(levels.identity) if self.settings.cannot_link else NO_PAIRS
        linked = cross_video.link(means, self.thresholds.sigma_drm, self.thresholds.r_s, cannot, self.settings.search)
        return np.where(levels.identity >= 0, linked[levels.identity], -1)


METHODS.register("published", Published())

"""Level 3: identities of different videos that show one person are linked (eq. 7)."""

from __future__ import annotations

import numpy as np

from cion_jax.neighbors import search
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from data_prep.denoise.settings import DEFAULT_SEARCH, SearchSettings


def link(
    means: np.ndarray, sigma_drm: float, r_s: int, cannot: Pairs = NO_PAIRS, settings: SearchSettings = DEFAULT_SEARCH
) -> np.ndarray:
    """Puts all videos one after another and joins whatever is near in looks and within the sliding range.

    What level 2 made one identity counts as one tracklet here: it has one place in the row and one centroid,
    which does not move while linking. Links are symmetric, so the half window after every tracklet has them
    all. Identities are the connected components of the links; a chain may reach further than r_s.

    Args:
      means: [N, d] centroids after level 2, in the order of the sorted videos and, within a video, of their
        first tracklet.
      sigma_drm: discrimination threshold, a cosine distance; a link needs a distance <= sigma_drm.
      r_s: half width of the sliding range, in tracklets; 0: no range.
      cannot: tracklets that must not become one identity.
      settings: of the search without a range.

    Returns:
      [N] int64 identities, numbered by their first tracklet.
    """
    return search.identities(means, sigma_drm, r_s or len(means), cannot, settings.exact_rows, settings.neighbors)

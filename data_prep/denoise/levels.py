"""What levels 1 and 2 do with the images of a video, whichever method decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Levels:
    """What levels 1 and 2 did with the m images of one video, or of all.

    Attributes:
      round: [m] int32, see `single_tracklet.Cleaned`.
      distance: [m] float64, see `single_tracklet.Cleaned`.
      tracklet: [m] int64 tracklet after level 2 (a), -1: discarded.
      nearest: [m] float64 distance of excluded images to the nearest other tracklet, else nan.
      identity: [m] int64 identity within the video after level 2 (b), -1: none.
      joined: [m] float64 distance of its tracklet to the nearest other of that identity, nan: there is no other.
    """

    round: np.ndarray
    distance: np.ndarray
    tracklet: np.ndarray
    nearest: np.ndarray
    identity: np.ndarray
    joined: np.ndarray

"""What a finished run knows: the one thing that the report and the data card are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.denoise.calibrate import Calibration
from data_prep.denoise.certificate import Certificate
from data_prep.denoise.method import Clustering
from data_prep.types import Image

LEVELS = ("input", "single_tracklet", "single_video", "cross_video")

KEPT, MOVED, DISCARDED = "kept", "moved", "discarded"
ACTIONS = (KEPT, MOVED, DISCARDED)

# One row per embedded image of the source: videos in sorted order, within a video as the source reads them.
# A source that knows identities goes through no level: its level columns are null.
PROVENANCE = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("video", pa.dictionary(pa.int32(), pa.string())),
        pa.field("tracklet", pa.dictionary(pa.int32(), pa.string())),  # as the tracker named it
        pa.field("frame", pa.int64()),
        pa.field("path", pa.string()),
        pa.field("box", pa.list_(pa.float64())),  # left, top, width, height; null: the whole picture
        pa.field("truth", pa.int64()),  # null: unknown; -1: a crop of nobody
        # Level 1: the round in which the image left its tracklet (0: it stayed) and its distance to the mean
        # of the others then (stayed: at the end; null: it is the only one).
        pa.field("level1_round", pa.int32()),
        pa.field("level1_distance", pa.float64()),
        # Level 2 (a): kept (level 1 left it alone), moved or discarded; the tracklet it belongs to now (null:
        # none) and its distance to the nearest other tracklet (null: kept, or there is no other).
        pa.field("level2_action", pa.dictionary(pa.int32(), pa.string())),
        pa.field("level2_tracklet", pa.dictionary(pa.int32(), pa.string())),
        pa.field("level2_distance", pa.float64()),
        # Level 2 (b): identity within the video, numbered over the whole data set; null: none.
        pa.field("level2_identity", pa.int64()),
        # Distance of its tracklet to the nearest other tracklet of that identity; null: there is no other.
        pa.field("level2_joined", pa.float64()),
        # Level 3: identity; 0 .. identities-1 are those of the shards, higher ones were dropped by the
        # selection, null: none.
        pa.field("identity", pa.int64()),
        # Distance of its identity of level 2 to the nearest other that level 3 joined it with; null: no other.
        pa.field("level3_joined", pa.float64()),
        # Distance of the image to the centroid of its identity; null: none.
        pa.field("distance", pa.float64()),
        # Estimated probability that a pair of the image's identity is right; null: none, or not estimated.
        pa.field("confidence", pa.float64()),
        pa.field("selected", pa.bool_()),
        pa.field("record", pa.int64()),  # number of the record in the shards; null: not selected
    ]
)


@dataclass(frozen=True)
class RunResult:
    """Everything about one run of data_prep that outlives it.

    Attributes:
      images: [N] rows of the schema `PROVENANCE`.
      levels: one mapping per level, in the order of `LEVELS` (a source that knows identities has the input
        alone): name, images, identities, noise, consistency_noise, discrimination_noise (the two sum up to
        noise) and, where truth is known, {pairwise,bcubed}_{precision,recall,f1}, in 0 .. 1.
      method: name of the denoising method.
      calibration: thresholds that were used, and the distances of the input that they are seen against.
      clustering: see `denoise.method.Labeling`.
      selection: images and identities that were selected, and the images that were not by reason.
      rejected: inputs that were set aside, by reason.
      embedder: name of the embedder, as given.
      embedder_digest: SHA-256 of what determines the features.
      source: name of the source.
      input: its folder or file, as given.
      settings: the whole configuration, defaults included, nested settings by dotted names.
      jpeg_of: JPEG bytes of one image (for montages; reads from the source or from the work folder).
    """

    images: pa.Table
    levels: Sequence[Mapping[str, Any]]
    method: str
    calibration: Calibration
    clustering: Clustering | None
    selection: Mapping[str, Any]
    rejected: Mapping[str, int]
    embedder: str
    embedder_digest: str
    source: str
    input: str
    settings: Mapping[str, Any]
    jpeg_of: Callable[[Image], bytes]

    @property
    def certificate(self) -> Certificate | None:
        """How right the identities are, estimated."""
        return None if self.clustering is None else self.clustering.certificate

    @property
    def thresholds(self) -> dict[str, float]:
        """Every threshold in force, by name."""
        thresholds = asdict(self.calibration.thresholds)
        return thresholds if self.clustering is None else {**thresholds, self.method: self.clustering.threshold}


def images_at(images: pa.Table, rows: Sequence[int] | np.ndarray) -> list[Image]:
    """The references behind rows of a provenance table."""
    names = ("key", "video", "tracklet", "frame", "path", "box", "truth")
    columns = [images[name].take(np.asarray(rows, np.int64)).to_pylist() for name in names]
    return [
        Image(key, video, tracklet, frame, path, None if box is None else tuple(box), truth)
        for key, video, tracklet, frame, path, box, truth in zip(*columns, strict=True)
    ]

"""A run small enough to be checked by hand: two videos, four tracklets, nine images."""

import numpy as np
import pyarrow as pa

from cion_jax.common import images
from data_prep.denoise import calibrate
from data_prep.denoise.calibrate import Calibration, Samples
from data_prep.denoise.method import Clustering
from data_prep.denoise.settings import Thresholds
from data_prep.output.provenance import LEVELS, PROVENANCE, RunResult

# key, tracklet, truth, round of level 1, action of level 2, tracklet and identity after level 2, identity in the end
# (0 and 1 are written), selected. Tracklets are called alike in both videos.
ROWS = [
    ("hall/1/a", "1", 7, 0, "kept", "1", 0, 0, True),
    ("hall/1/b", "1", 8, 1, "moved", "2", 1, 1, True),
    ("hall/1/c", "1", 7, 0, "kept", "1", 0, 0, False),
    ("hall/2/d", "2", 8, 0, "kept", "2", 1, 1, True),
    ("hall/2/e", "2", 8, 0, "kept", "2", 1, 1, True),
    ("hall/3/f", "3", 8, 0, "kept", "3", 1, 1, True),
    ("hall/3/g", "3", -1, 2, "discarded", None, None, None, False),
    ("street/1/h", "1", 7, 0, "kept", "1", 2, 0, True),
    ("street/1/i", "1", 9, 0, "kept", "1", 2, 0, True),
]
SAMPLES = Samples(np.linspace(0, 0.6, 50), np.linspace(0.3, 0.9, 50), np.linspace(0.1, 1, 50), np.linspace(0.4, 1, 50))
NOISE = (1.5, 1.25, 0.5, 0.125)
F1 = (0.25, 0.5, 0.625, 0.875)


def table() -> pa.Table:
    """The provenance of the run."""
    names = ("key", "tracklet", "truth", "level1_round", "level2_action", "level2_tracklet")
    names += ("level2_identity", "identity", "selected")
    columns = {name: list(values) for name, values in zip(names, zip(*ROWS, strict=True), strict=True)}
    count = len(ROWS)
    columns["video"] = [key.split("/")[0] for key in columns["key"]]
    columns |= {"frame": list(range(count)), "path": columns["key"], "box": [None] * count, "record": [None] * count}
    columns |= {"level1_distance": [0.125] * count, "level2_distance": [0.75] * count}
    columns |= {
        "level2_joined": [0.25] * count,
        "level3_joined": [0.5] * count,
        "distance": [0.0625] * count,
        "confidence": [None] * count,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in PROVENANCE], schema=PROVENANCE)


def jpeg_of(image) -> bytes:
    """Grey crops; the picture of image i is gone."""
    if image.key.endswith("i"):
        raise OSError("gone")
    return images.encode_jpeg(np.full((40, 20, 3), 128, np.uint8))


def run(**changes) -> RunResult:
    """What the run knows; `changes` replace fields of it."""
    levels = [
        {"name": name, "images": 9 - i, "identities": 4 - i, "noise": noise, "pairwise_f1": f1, "bcubed_f1": f1}
        | {"consistency_noise": 0.125, "discrimination_noise": noise - 0.125}
        | {"pairwise_precision": f1, "pairwise_recall": f1}
        for i, (name, noise, f1) in enumerate(zip(LEVELS, NOISE, F1, strict=True))
    ]
    fields = dict(
        images=table(),
        levels=levels,
        method="shared_neighbors",
        calibration=Calibration(Thresholds(0.45, 0.2, 1000), SAMPLES, calibrate.COOCCURRING, True),
        clustering=Clustering(np.zeros(0, np.int64), 0.375, np.linspace(0, 1, 50), np.zeros(50)),
        selection={"images": 7, "identities": 2, "not_selected": {"no identity": 1, "identity full": 1}},
        rejected={"unreadable image": 4, "malformed line": 1},
        embedder="color",
        embedder_digest="ab" * 32,
        source="tracklets",
        input="/data/<people> | more",
        settings={"seed": 3, "sigma_cst": None, "blur_faces": False},
        jpeg_of=jpeg_of,
    )
    return RunResult(**{**fields, **changes})

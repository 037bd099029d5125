"""Folders of flat pictures, and an extractor whose features are their colors, so that every number is known by hand."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

from cion_jax.data import records
from data_prep import embedders
from data_prep.config import Config
from data_prep.pipeline import run

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
A, B = "hof 1", "straße"

# In A a green crop slipped into the red tracklet and a blue one into the green; nobody else in A is blue.
STREET = {
    A: {"t0": [RED, RED, GREEN, RED], "t1": [GREEN, GREEN, BLUE, GREEN]},
    B: {"u0": [RED, RED], "u1": [BLUE, BLUE], "u2": [RED]},
}


def paint(root: Path, street=STREET, suffix=".jpg") -> Path:
    for video, tracklets in street.items():
        for tracklet, colors in tracklets.items():
            (root / video / tracklet).mkdir(parents=True)
            for i, color in enumerate(colors):
                picture = np.full((16, 8, 3), color[::-1], np.uint8)
                quality = [cv2.IMWRITE_JPEG_QUALITY, 100] if suffix == ".jpg" else []
                _, data = cv2.imencode(suffix, picture, quality)
                (root / video / tracklet / f"{i:03d}{suffix}").write_bytes(data)
    return root


def as_they_are(call, features):
    return features


@embedders.REGISTRY.add("mean")
class MeanColor:
    """Embedder whose feature is the mean color; `spoil(video call number, features)` may break it."""

    name = usage = "mean"
    digest, calls, spoil = "0" * 64, 0, staticmethod(as_they_are)

    def __init__(self, _=""):
        pass

    def __call__(self, crops):
        call, MeanColor.calls = MeanColor.calls, MeanColor.calls + 1
        features = np.array([crop.mean((0, 1)) for crop in crops], np.float32).reshape(-1, 3)
        length = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
        return MeanColor.spoil(call, features / length)


def job(root, output, source="tracklets", embedder="mean", **config):
    return run.Job(source, str(root), embedder, output, Config(**{"preset": "paper", **config}))


def by_key(output: Path) -> dict[str, dict]:
    return {row["key"]: row for row in pq.read_table(output / records.PROVENANCE_FILE).to_pylist()}


def content(output: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in output.iterdir() if p.is_file()}

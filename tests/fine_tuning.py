"""A fine-tuning run small enough for tests: people as colors, a folder as Market-1501 is unpacked."""

import cv2
import numpy as np

from cion_jax.common import typed_config
from cion_jax.tasks.supervised.config import Config
from tests import toy

PEOPLE, IMAGES = 6, 5


def write_market(folder):
    """People 2, 5, 8, ..., a distractor, junk, a name that says nothing; returns the folder."""
    inside = folder / "bounding_box_train"
    inside.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{2 + 3 * p:04d}_c{1 + i % 3}s1_{i:06d}_01.jpg" for p in range(PEOPLE) for i in range(IMAGES)]
    for name in [*names, "0000_c1s1_000001_01.jpg", "-1_c1s1_000001_01.jpg", "thumb.jpg"]:
        clothes = np.random.default_rng(abs(int(name[:4])) if name[:4].isdigit() else 0).integers(0, 256, 3)
        picture = np.clip(clothes + rng.normal(0, 20, (32, 16, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(inside / name), picture)
    return folder


def settings(path, **changes):
    """A ConfigDict of a run of seconds; `changes` are dotted names with `__` for the dots."""
    return toy.changed(
        Config(),
        {
            "model.name": "toy",
            "model.dtype": "float32",
            "data.path": str(path),
            "data.batch_size": 16,
            "data.instances": 2,
            "data.canvas": (32, 16),
            "data.threads": 2,
            "image.height": 32,
            "image.width": 16,
            "image.pad": 2,
            "train.epochs": 8,
            "train.log_every": 1,
            "train.checkpoint_every": 100,
            "optimizer.learning_rate": 0.05,
            "optimizer.warmup_epochs": 2.0,
        },
        changes,
    )


def config(path, **changes) -> Config:
    """The same, frozen."""
    return typed_config.freeze(Config, settings(path, **changes))

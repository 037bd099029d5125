"""A run of cluster contrast small enough for tests: people as colors, four cameras, a few images of nobody."""

import cv2
import numpy as np

from cion_jax.common import typed_config
from cion_jax.tasks.cluster.config import Config
from tests import toy

PEOPLE, IMAGES, STRANGERS = 8, 8, 3


def write_market(folder, people=PEOPLE, strangers=STRANGERS):
    """Crops named like Market-1501's: person p has a color, strangers have one each that nobody else is near."""
    inside = folder / "bounding_box_train"
    inside.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{2 + 3 * p:04d}_c{1 + i % 4}s1_{i:06d}_01.jpg" for p in range(people) for i in range(IMAGES)]
    for name in [*names, *(f"-1_c1s1_{i:06d}_01.jpg" for i in range(strangers))]:
        person = int(name.split("_")[0])
        clothes = np.array([40, 40, 40]) + 170 * np.array([person & 1, person >> 1 & 1, person >> 2 & 1])
        if person < 0:
            clothes = rng.integers(90, 160, 3)
        picture = np.clip(clothes + rng.normal(0, 6, (32, 16, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(inside / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return folder


def settings(path, **changes):
    """A ConfigDict; `changes` are dotted names with `__` for the dots."""
    return toy.changed(
        Config(),
        {
            "model.name": "toy",
            "model.pool": "own",
            "data.path": str(path),
            "data.batch_size": 16,
            "data.instances": 2,
            "data.iterations": 4,
            "data.canvas": (32, 16),
            "data.threads": 2,
            "image.height": 32,
            "image.width": 16,
            "image.pad": 2,
            "image.erase.probability": 0.0,
            "train.epochs": 3,
            "train.log_every": 1,
            "train.checkpoint_every": 100,
            "optimizer.learning_rate": 1e-2,
            "optimizer.decay_epochs": (2,),
            "labels.dbscan.k1": 8,
            "labels.dbscan.k2": 3,
        },
        changes,
    )


def config(path, **changes) -> Config:
    """The same, frozen."""
    return typed_config.freeze(Config, settings(path, **changes))

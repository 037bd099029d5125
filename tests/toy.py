"""A run small enough for tests: colored rectangles as people, a backbone of two convolutions, a few seconds a run."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from flax import nnx

from cion_jax.common import typed_config
from cion_jax.models import layers, registry
from cion_jax.tasks.distill.config import Config
from cion_jax.tasks.distill.task import Distill
from data_prep.output import shards
from data_prep.types import Image

PEOPLE = 13


class Toy(nnx.Module):
    """Two convolutions, BatchNorm, stochastic depth, average pooling."""

    features = 16

    def __init__(self, *, dtype=jnp.float32, remat=False, rngs):
        del remat
        self.conv1 = layers.Conv(3, 8, 3, stride=2, padding=1, bias=False, dtype=dtype, rngs=rngs)
        self.bn1 = layers.BatchNorm(8, dtype=dtype, rngs=rngs)
        self.conv2 = layers.Conv(8, 16, 3, stride=2, padding=1, dtype=dtype, rngs=rngs)
        self.conv3 = layers.Conv(16, 16, 3, padding=1, dtype=dtype, rngs=rngs)

    def __call__(self, x_BHWC, *, train=False, key=None):
        x = self.conv2(nnx.relu(self.bn1(self.conv1(x_BHWC), train=train)))
        x = x + layers.drop_path(self.conv3(nnx.relu(x)), 0.1, train=train, key=key)
        return x.mean((1, 2))


ZOO = registry.names()  # the real ones: tests add toys to the registry
registry.BACKBONES.register("toy", functools.partial(Toy))
# The 32 of the paper, for which there are reference numbers.
PUBLISHED = [
    *(f"{family}_{size}" for family in ("convnext", "swin") for size in ("tiny", "small", "base")),
    *("edgenext_x_small", "edgenext_small", "edgenext_base"),
    *("fastvit_s12", "fastvit_sa12", "fastvit_sa24", "ghostnet_0_5", "ghostnet_1_0", "ghostnet_1_3"),
    *(
        "repvit_m0_9",
        "repvit_m1_0",
        "repvit_m1_5",
        "vit_tiny",
        "vit_small",
        "vit_base",
        "volo_d1",
        "volo_d2",
        "volo_d3",
    ),
    *(f"resnet{depth}{ibn}" for depth in (18, 50, 101, 152) for ibn in ("", "_ibn")),
]


def write_shards(folder, images_of=lambda person: 2 + person % 5, broken=lambda image: False):
    """Identity shards of PEOPLE people in two videos; person p has `images_of(p)` images. Those that are
    `broken` only begin like a JPEG."""
    images, identities = [], []
    for person in range(PEOPLE):
        for i in range(images_of(person)):
            video, track = f"v{i % 2}", f"{person}"
            images.append(Image(f"{video}/{track}/{i}.jpg", video, track, i, path=""))
            identities.append(person)

    def jpeg(image):
        if broken(image):
            return b"\xff\xd8"
        rng = np.random.default_rng([int(image.tracklet), image.frame])
        clothes = np.random.default_rng(int(image.tracklet)).integers(0, 256, (2, 3))
        picture = np.full((32, 16, 3), 90 + 70 * int(image.video[1]), np.uint8)
        picture[4:16, 4:12], picture[16:30, 5:11] = clothes
        picture = picture + rng.normal(0, 8, picture.shape)
        return cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8))[1].tobytes()

    provenance = pa.table({"key": [i.key for i in images], "identity": identities})
    return shards.write(folder, images, np.array(identities), jpeg, provenance)


def small_views(height, width):
    """Global views of this size, local ones of half of it."""
    sizes = {"global_1": (height, width), "global_2": (height, width), "local": (height // 2, width // 2)}
    return {f"views.{v}.{n}": x for v, size in sizes.items() for n, x in zip(("height", "width"), size, strict=True)}


def config(path, **changes) -> Config:
    """The toy run's config; `changes` are dotted names with `__` for the dots."""
    model = 4 if len(jax.devices()) % 4 == 0 else 1  # a device has a batch's largest group of 4
    return typed_config.freeze(Config, settings(path, **{"mesh__model": model} | changes))


def task(path, **changes) -> Distill:
    """The toy run's task."""
    return Distill(config(path, **changes))


def changed(config, values, changes):
    """A config with settings by dotted names, and then by names with `__` for the dots, as a ConfigDict."""
    settings = typed_config.thaw(config)
    settings.update_from_flattened_dict(values | {name.replace("__", "."): value for name, value in changes.items()})
    return settings


def settings(path, **changes):
    """The same as a ConfigDict, whatever the devices."""
    return changed(
        Config(),
        {
            "model.name": "toy",
            "model.prototypes": 32,
            "model.hidden": 256,
            "model.bottleneck": 64,
            "model.dtype": "float32",
            "data.path": str(path),
            "data.batch_size": 8,
            "data.curriculum": ((0, 2), (1, 4)),
            "data.canvas": (32, 16),
            "data.threads": 2,
            **small_views(32, 16),
            "views.local_views": 2,
            "train.epochs": 3,
            "train.log_every": 1,
            "train.checkpoint_every": 100,
            "optimizer.warmup_epochs": 1.0,
            "optimizer.freeze_epochs": 0.5,
            "optimizer.learning_rate": 1e-2,
        },
        changes,
    )

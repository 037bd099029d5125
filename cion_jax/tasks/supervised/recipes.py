"""The released fine-tuning settings: TransReID's for every backbone, MGN's for six ResNets.

`BATCHES` and `EXCEPTIONS` are the 64 configuration files of CION_ReIDZoo; everything else is the same in all of them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from cion_jax.common.typed_config import ConfigError, unknown
from cion_jax.data import crops
from cion_jax.models import registry
from cion_jax.tasks.supervised.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig
from cion_jax.training.config import LoopConfig

Dataset = Literal["market1501", "msmt17"]
DATASETS: tuple[Dataset, ...] = ("market1501", "msmt17")

# Images in a batch on Market-1501 and on MSMT17.
BATCHES: dict[str, tuple[int, int]] = {
    "ghostnet_0_5": (32, 32),
    "ghostnet_1_0": (64, 64),
    "ghostnet_1_3": (64, 64),
    "edgenext_x_small": (64, 32),
    "edgenext_small": (256, 64),
    "edgenext_base": (64, 64),
    "repvit_m0_9": (128, 64),
    "repvit_m1_0": (256, 64),
    "repvit_m1_5": (64, 64),
    "fastvit_s12": (64, 64),
    "fastvit_sa12": (64, 64),
    "fastvit_sa24": (64, 64),
    "resnet18": (256, 32),
    "resnet50": (512, 64),
    "resnet101": (128, 128),
    "resnet152": (128, 128),
    "resnet18_ibn": (256, 32),
    "resnet50_ibn": (512, 64),
    "resnet101_ibn": (64, 128),
    "resnet152_ibn": (128, 128),
    "convnext_tiny": (64, 64),
    "convnext_small": (256, 256),
    "convnext_base": (120, 256),
    "volo_d1": (256, 128),
    "volo_d2": (256, 64),
    "volo_d3": (128, 64),
    "vit_tiny": (512, 512),
    "vit_small": (512, 512),
    "vit_base": (384, 384),
    "swin_tiny": (64, 64),
    "swin_small": (64, 64),
    "swin_base": (64, 64),
}
_UNLISTED = (64, 64)
RATE_OF_64 = 4e-4  # learning rate of a batch of 64 images; it grows with the batch
# Where one data set's file departs from that rule or from the 20 epochs of warm-up.
EXCEPTIONS: dict[tuple[str, Dataset], dict[str, Any]] = {
    ("ghostnet_0_5", "market1501"): {"warmup_epochs": 40},
    ("convnext_base", "market1501"): {"learning_rate": 8e-4},
    ("swin_base", "msmt17"): {"learning_rate": 2e-4},
}
MGN_BACKBONES = tuple(f"resnet{depth}{ibn}" for ibn in ("", "_ibn") for depth in (50, 101, 152))
_DROP_PATH = {"swin": 0.1}  # by family; 0 in all others, whatever their files say


def transreid(backbone: str, dataset: Dataset = "market1501") -> Config:
    """TransReID's recipe of a backbone; one that the release does not have gets a batch of 64 images.

    Raises:
      ConfigError: an unknown name.
    """
    if backbone not in registry.names():
        raise ConfigError(unknown(f"backbone {backbone!r}", backbone, registry.names()))
    if dataset not in DATASETS:
        raise ConfigError(unknown(f"data set {dataset!r}", dataset, list(DATASETS)))
    batch_size = BATCHES.get(backbone, _UNLISTED)[DATASETS.index(dataset)]
    optimizer = OptimizerConfig(learning_rate=RATE_OF_64 * batch_size / 64)
    return Config(
        data=DataConfig(batch_size=batch_size),
        model=ModelConfig(backbone, drop_path=_DROP_PATH.get(backbone.split("_")[0], 0.0)),
        optimizer=dataclasses.replace(optimizer, **EXCEPTIONS.get((backbone, dataset), {})),
    )


def mgn(backbone: str) -> Config:
    """MGN's recipe, the same for all six ResNets and both data sets.

    An epoch has images // 64 steps; passes through the data go on from epoch to epoch.

    Raises:
      ConfigError: another backbone.
    """
    if backbone not in MGN_BACKBONES:
        raise ConfigError(unknown(f"backbone of MGN {backbone!r}", backbone, list(MGN_BACKBONES)))
    return Config(
        data=DataConfig(instances=16, canvas=(384, 128)),
        train=LoopConfig(epochs=60),
        model=ModelConfig(backbone, method="mgn", served="after", dtype="float32"),
        image=crops.MGN,
        loss=LossConfig(smoothing=0.1),
        optimizer=OptimizerConfig(
            "adam",
            learning_rate=3.5e-4,
            bias_rate=1.0,
            warmup_epochs=10,
            flat_epochs=30,
            frozen_epochs=10,
            weight_decay=5e-4,
        ),
    )

"""The released fine-tuning settings: TransReID's for every backbone, MGN's for six ResNets.

`BATCHES` and `EXCEPTIONS` are the 64 configuration files of CION_ReIDZoo; everything else is the same in all of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from cion_jax.common.typed_config import ConfigError, unknown
from cion_jax.data import crops
from cion_jax.models import registry
from cion_jax.tasks.supervised.necks import Served
from cion_jax.tasks.supervised.optimizers import Group, Optimizer

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
_SGD = Optimizer("sgd")  # momentum 0.9
_DROP_PATH = {"swin": 0.1}  # by family; 0 in all others, whatever their files say


@dataclass(frozen=True)
class Recipe:
    """How a backbone is fine-tuned.

    Attributes:
      method: `bnneck` (TransReID) or `mgn` (FastReID).
      backbone: a name of `cion_jax.models`.
      batch_size: images in the global batch.
      instances: K, images of one identity in a batch.
      epochs: length of the run.
      learning_rate: base of the schedule (`schedules.transreid`, `schedules.mgn`), not scaled by anything any more.
      warmup_epochs: of linear warm-up.
      flat_epochs: epoch at which MGN's cosine starts.
      frozen_epochs: epochs in which MGN's backbone and branches do not train.
      weight_decay: coupled, of all parameters, norms and biases too.
      bias_rate: by which factor the learning rate of biases is greater.
      smoothing: of the labels.
      drop_path: highest rate of stochastic depth.
      image: how training images are made.
      served: which feature stands for an image at test time, before or after the neck.
      optimizer: what turns gradients into directions.
    """

    method: Literal["bnneck", "mgn"]
    backbone: str
    batch_size: int = 64
    instances: int = 4
    epochs: int = 120
    learning_rate: float = RATE_OF_64
    warmup_epochs: float = 20
    flat_epochs: float = 0
    frozen_epochs: float = 0
    weight_decay: float = 1e-4
    bias_rate: float = 2.0
    smoothing: float = 0.0
    drop_path: float = 0.0
    image: crops.CropSpec = crops.TRANSREID
    served: Served = "before"
    optimizer: Optimizer = _SGD

    def groups(self, steps_per_epoch: int) -> tuple[Group, ...]:
        """Groups of parameters, in order.

        "bias" is found in Swin's tables of relative positions, too, as in the released code. What is frozen stays so
        for one step more than `frozen_epochs`.
        """
        frozen = (Group("^(backbone|b1|b2|b3)/", frozen_until=round(self.frozen_epochs * steps_per_epoch) + 1),)
        biases = (Group("bias", rate=self.bias_rate),)
        return (*frozen * (self.frozen_epochs > 0), *biases * (self.bias_rate != 1), Group(""))


def transreid(backbone: str, dataset: Dataset = "market1501") -> Recipe:
    """TransReID's recipe of a backbone; one that the release does not have gets a batch of 64 images.

    Raises:
      ConfigError: an unknown name.
    """
    if backbone not in registry.names():
        raise ConfigError(unknown(f"backbone {backbone!r}", backbone, registry.names()))
    if dataset not in DATASETS:
        raise ConfigError(unknown(f"data set {dataset!r}", dataset, list(DATASETS)))
    batch_size = BATCHES.get(backbone, _UNLISTED)[DATASETS.index(dataset)]
    drop_path = _DROP_PATH.get(backbone.split("_")[0], 0.0)
    rate = RATE_OF_64 * batch_size / 64
    recipe = Recipe("bnneck", backbone, batch_size, learning_rate=rate, drop_path=drop_path)
    return dataclasses.replace(recipe, **EXCEPTIONS.get((backbone, dataset), {}))


def mgn(backbone: str) -> Recipe:
    """MGN's recipe, the same for all six ResNets and both data sets.

    An epoch has images // 64 steps; passes through the data go on from epoch to epoch.

    Raises:
      ConfigError: another backbone.
    """
    if backbone not in MGN_BACKBONES:
        raise ConfigError(unknown(f"backbone of MGN {backbone!r}", backbone, list(MGN_BACKBONES)))
    return Recipe(
        "mgn",
        backbone,
        batch_size=64,
        instances=16,
        epochs=60,
        learning_rate=3.5e-4,
        warmup_epochs=10,
        flat_epochs=30,
        frozen_epochs=10,
        weight_decay=5e-4,
        bias_rate=1.0,
        smoothing=0.1,
        image=crops.MGN,
        served="after",
        optimizer=Optimizer("adam"),
    )

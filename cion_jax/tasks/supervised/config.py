"""The settings of a fine-tuning run; `recipes` gives them the released values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from cion_jax.common.bounds import SHARE, between
from cion_jax.common.typed_config import ConfigError
from cion_jax.data.crops import CropSpec
from cion_jax.data.train_split import Protocol
from cion_jax.tasks.supervised.necks import Served
from cion_jax.training import config as training
from cion_jax.training.config import Rate

Count = Annotated[int, between(0, 2**24)]


@dataclass(frozen=True)
class ModelConfig(training.ModelConfig):
    """Backbone and what stands behind it.

    Attributes:
      method: `bnneck` (TransReID's head, any backbone) or `mgn` (FastReID's, a ResNet).
      classes: people that the classifier tells apart; 0: as many as the data has.
      classifier: what it begins with: `random` weights, as released, or the `means` of people's features by the network
        that the run starts from. A network that knows people is disturbed by a classifier that knows none.
      served: which feature stands for an image at test time, before or after the neck; MGN's is after.
      resampled_positions: of a ViT at 256x128: its position embeddings pass through a bicubic resize to the size that
        they have, as in the released fine-tuning, where two sizes are compared that never are equal.
    """

    method: Literal["bnneck", "mgn"] = "bnneck"
    classes: Count = 0
    classifier: Literal["random", "means"] = "random"
    served: Served = "before"
    resampled_positions: bool = False


@dataclass(frozen=True)
class DataConfig(training.DataConfig):
    """Identity shards, or a benchmark as it was unpacked, whose training images are read as files.

    Attributes:
      instances: K, images of one person in a batch; a batch has batch_size / K different people.
      protocol: of MSMT17, which lists are trained on; published numbers are of both.
      steps_per_epoch: of which the schedule is made; 0: those of a pass through the data (of MGN: images //
        batch_size). What is set, passes go on from epoch to epoch.
      turns: an identity's tracklets take turns, so that the images of a group differ in place and time where they can.
    """

    batch_size: Annotated[int, between(1, 2**20)] = 64
    instances: Annotated[int, between(1, 2**20)] = 4
    protocol: Protocol = "trainval"
    steps_per_epoch: Annotated[int, between(0, 10**9)] = 0
    turns: bool = False


@dataclass(frozen=True)
class LossConfig:
    """Cross entropy and batch-hard triplets.

    Attributes:
      smoothing: of the labels, the probability that is taken from them.
      normalized: triplets are of features of length 1. As released they are of raw ones: where those of the start are
        long, the triplets' first gradients outweigh what the start knows.
    """

    smoothing: Annotated[float, SHARE] = 0.0
    normalized: bool = False


@dataclass(frozen=True)
class OptimizerConfig(training.CoupledConfig):
    """Rates of the method's schedule.

    Attributes:
      bias_rate: by which factor the learning rate of biases is greater.
      warmup_epochs: of linear warm-up.
      flat_epochs: epoch at which MGN's cosine starts.
      frozen_epochs: epochs in which MGN's backbone and branches do not train.
    """

    bias_rate: Rate = 2.0
    warmup_epochs: Rate = 20.0
    flat_epochs: Rate = 0.0
    frozen_epochs: Rate = 0.0


@dataclass(frozen=True)
class Config(training.RunConfig):
    """One fine-tuning run.

    Attributes:
      image: how training images are made; evaluation takes size, mean and std of it.
    """

    task: str = "supervised"
    epoch_length: ClassVar[str] = "steps_per_epoch"
    data: DataConfig = field(default_factory=DataConfig)
    train: training.LoopConfig = field(default_factory=lambda: training.LoopConfig(epochs=120))
    model: ModelConfig = field(default_factory=ModelConfig)
    image: CropSpec = field(default_factory=CropSpec)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def validate(self) -> None:
        """Raises ConfigError where settings contradict each other."""
        super().validate()
        if self.model.method == "mgn" and self.model.served != "after":
            raise ConfigError("config.model.served of MGN is its parts after their necks; give after")
        if self.model.method == "mgn" and self.loss.normalized:
            raise ConfigError("config.loss.normalized is of bnneck; MGN's triplets are of raw features, leave it out")
        if self.model.method == "mgn" and self.model.classifier != "random":
            raise ConfigError(
                "config.model.classifier=means is of bnneck; MGN has a classifier for each part, give random"
            )
        plain = (self.model.method, self.image.height, self.image.width) == ("bnneck", 256, 128)
        if self.model.resampled_positions and not (plain and self.model.name.startswith("vit_")):
            raise ConfigError(
                "config.model.resampled_positions is of a ViT at 256x128 with a BNNeck, got "
                f"{self.model.name} at {self.image.height}x{self.image.width} with {self.model.method}; leave it out"
            )
        if self.model.method == "bnneck" and (self.optimizer.flat_epochs or self.optimizer.frozen_epochs):
            raise ConfigError(
                "config.optimizer.flat_epochs and frozen_epochs are of MGN; set them to 0, or give "
                "config.model.method=mgn"
            )

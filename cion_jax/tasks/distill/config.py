"""The settings of a pre-training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from cion_jax.common.bounds import SHARE, Bounds, between, positive
from cion_jax.data.groups import UnitKind
from cion_jax.data.views import ViewsConfig
from cion_jax.tasks.distill.loss import LossConfig
from cion_jax.training import config as training
from cion_jax.training.config import Rate

Width = Annotated[int, between(1, 2**24)]
LearningRate = Annotated[float, between(0, 1e38)]  # what float32 holds


@dataclass(frozen=True)
class ModelConfig(training.ModelConfig):
    """Backbone and distillation head.

    Attributes:
      prototypes: P, width of the head's output.
      hidden, bottleneck: widths of the head's MLP.
      options: other ways to compute the same, names of `cion_jax.models.options`.
    """

    name: str = "vit_base"
    prototypes: Width = 65536
    hidden: Width = 2048
    bottleneck: Width = 256
    drop_path: Annotated[float | None, Bounds(0, 1, open_high=True)] = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataConfig(training.DataConfig):
    """Identity shards, written by `python -m data_prep`.

    Attributes:
      curriculum: (first epoch, K) pairs, K images of one identity in a group; every K divides the batch.
      steps_per_epoch: of which the schedules and the curriculum are made; 0: those of a pass through the data, whose
        number changes with K. What is set, passes go on from epoch to epoch.
      turns: an identity's tracklets take turns, so that the images of a group differ in place and time where they can.
    """

    curriculum: Annotated[tuple[tuple[int, int], ...], between(0, 2**20)] = ((0, 2), (40, 4), (60, 6), (80, 8))
    steps_per_epoch: Annotated[int, between(0, training.MAX_STEPS)] = 0
    turns: bool = False


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedules.

    Attributes:
      learning_rate: peak for 256 images; scaled by batch_size / 256.
      final_learning_rate: where the cosine tends to, not scaled.
      warmup_epochs: linear warm-up, may be a fraction.
      weight_decay: (start, end) of its cosine.
      freeze_epochs: epochs in which the prototypes do not train.
      teacher_momentum: EMA momentum at the start; tends to 1.
      clip: greatest norm of the gradient of one tensor.
      betas: of AdamW.
    """

    learning_rate: LearningRate = 5e-4
    final_learning_rate: LearningRate = 1e-6
    warmup_epochs: Rate = 10.0
    weight_decay: Annotated[tuple[float, float], between(0, 10**6)] = (0.04, 0.4)
    freeze_epochs: Rate = 1.0
    teacher_momentum: Annotated[float, SHARE] = 0.996
    clip: Annotated[float, positive(10**12)] = 3.0
    betas: Annotated[tuple[float, float], SHARE] = (0.9, 0.999)


@dataclass(frozen=True)
class Config(training.RunConfig):
    """One pre-training run.

    Attributes:
      identity: who counts as one person: an `identity` found by denoising, a `tracklet` of the source, or every
        image for itself (`instance`, K = 1: plain self-distillation).
      init_from: as of every run: student and teacher both start from these weights, the backbone, and the head where
        it is of the same shape.
    """

    task: str = "distill"
    epoch_length: ClassVar[str] = "steps_per_epoch"
    identity: UnitKind = "identity"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    @property
    def curriculum(self) -> tuple[tuple[int, int], ...]:
        """(first epoch, K) pairs in force; instances are groups of one."""
        return ((0, 1),) if self.identity == "instance" else self.data.curriculum

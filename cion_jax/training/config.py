"""The settings of a training run: frozen dataclasses behind the ConfigDict. Contradictions raise here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cion_jax.common.typed_config import ConfigError
from cion_jax.data.groups import UnitKind
from cion_jax.data.views import ViewsConfig
from cion_jax.tasks.distill.loss import LossConfig


@dataclass(frozen=True)
class ModelConfig:
    """Backbone and distillation head.

    Attributes:
      name: a backbone of `cion_jax.models`.
      prototypes: P, width of the head's output.
      hidden, bottleneck: widths of the head's MLP.
      dtype: compute type; parameters, norms, softmax and loss stay fp32.
      drop_path: highest rate of stochastic depth, in [0, 1); None is the family's own.
      remat: recompute the backbone's blocks in the backward pass: less memory, a third more work.
    """

    name: str = "vit_base"
    prototypes: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    drop_path: float | None = None
    remat: bool = False


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from.

    Attributes:
      path: an identity-shard folder, written by `python -m data_prep`.
      batch_size: images in the global batch; a multiple of every K of the curriculum.
      curriculum: (first epoch, K) pairs, K images of one identity in a group.
      canvas: (height, width) in pixels that decoded images are laid on; larger images are scaled down to fit.
      threads: threads that read and decode.
      max_skipped: share of records, 0 .. 1, that may fail to decode before the run stops.
      accept_changed: resume although the data is not what the checkpoint was trained on; the order of what is still
        to come is then another.
    """

    path: str = ""
    batch_size: int = 960
    curriculum: tuple[tuple[int, int], ...] = ((0, 2), (40, 4), (60, 6), (80, 8))
    canvas: tuple[int, int] = (256, 128)
    threads: int = 16
    max_skipped: float = 0.001
    accept_changed: bool = False


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and the schedules of spec section 4.

    Attributes:
      learning_rate: peak for 256 images; scaled by batch_size / 256.
      final_learning_rate: where the cosine tends to, not scaled.
      warmup_epochs: linear warm-up, may be a fraction.
      weight_decay: (start, end) of its cosine.
      freeze_epochs: epochs in which the prototypes do not train.
      teacher_momentum: EMA momentum at the start; tends to 1.
    """

    learning_rate: float = 5e-4
    final_learning_rate: float = 1e-6
    warmup_epochs: float = 10.0
    weight_decay: tuple[float, float] = (0.04, 0.4)
    freeze_epochs: float = 1.0
    teacher_momentum: float = 0.996


@dataclass(frozen=True)
class RunConfig:
    """How long to train, what to write.

    Attributes:
      epochs: length of the schedules.
      steps: stop after this many steps (0: after the last epoch); does not change the schedules.
      log_every: steps between metric rows.
      checkpoint_every: steps between checkpoints; the last step always has one.
      keep: how many checkpoints to keep.
      accumulate: parts of a batch whose gradients are added up one after another: less memory. BatchNorm then
        normalizes by the statistics of a part.
      grace: seconds from SIGTERM or SIGINT to the end of the process, whether its checkpoint is complete or not.
    """

    epochs: int = 100
    steps: int = 0
    log_every: int = 20
    checkpoint_every: int = 1000
    keep: int = 3
    accumulate: int = 1
    grace: float = 25.0


@dataclass(frozen=True)
class ProfileConfig:
    """What to look at closely.

    Attributes:
      steps: first and last step, as `metrics.jsonl` counts them, of a trace in WORKDIR/profile; empty: none.
    """

    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 takes what is left."""

    data: int = -1
    fsdp: int = 1
    model: int = 1


@dataclass(frozen=True)
class Config:
    """One training run; a run is a function of this, the data and nothing else.

    Attributes:
      seed: of initialization, identity groups and views.
      identity: who counts as one person: an `identity` found by denoising, a `tracklet` of the source, or every
        image for itself (`instance`, K = 1: plain self-distillation).
      init_from: a PyTorch or safetensors file, or a run folder, whose weights student and teacher start from: the
        backbone, and the head where it is of the same shape. Empty: random. A resumed run does not read it again.
      init_ignore: regular expressions of names that the file may lack or have too many.
    """

    seed: int = 0
    identity: UnitKind = "identity"
    init_from: str = ""
    init_ignore: tuple[str, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: RunConfig = field(default_factory=RunConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)

    @property
    def curriculum(self) -> tuple[tuple[int, int], ...]:
        """(first epoch, K) pairs in force; instances are groups of one."""
        return ((0, 1),) if self.identity == "instance" else self.data.curriculum

    def validate(self) -> None:
        """Raises ConfigError where settings contradict each other."""
        if not self.data.path:
            raise ConfigError(
                "config.data.path is empty; give the folder that `python -m data_prep --output=...` wrote"
            )
        for name in ("epochs", "log_every", "checkpoint_every", "keep", "accumulate"):
            if getattr(self.train, name) < 1:
                raise ConfigError(f"config.train.{name} must be at least 1, got {getattr(self.train, name)}")
        traced = self.profile.steps
        if traced and (len(traced) != 2 or not 1 <= traced[0] <= traced[1]):
            raise ConfigError(f"config.profile.steps takes a first and a last step, e.g. 10,20, got {traced}")

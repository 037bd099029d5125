"""The settings that every training run has, whatever it learns: frozen dataclasses behind the ConfigDict.

A task adds its own in a subclass of `RunConfig` (`tasks/*/config.py`). Bounds stand where a setting is declared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from cion_jax.common.bounds import SEED, SHARE, Bounds, between, positive
from cion_jax.common.paths import local_path
from cion_jax.common.patterns import check_patterns
from cion_jax.common.typed_config import ConfigError
from cion_jax.distributed.sharding import MeshConfig

MAX_STEPS = 10**9
MAX_BATCH_BYTES = 2**35  # of the decoded images of a global batch
Pixels = Annotated[tuple[int, int], between(1, 4096)]


Rate = Annotated[float, between(0, 10**6)]


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from.

    Attributes:
      path: the folder of the data.
      batch_size: images in the global batch.
      canvas: (height, width) in pixels that decoded images are laid on; larger images are scaled down to fit.
      threads: threads that read and decode.
      max_skipped: share of records, 0 .. 1, that may fail to decode before the run stops.
      accept_changed: resume although the data is not what the checkpoint was trained on; the order of what is still
        to come is then another.
    """

    path: str = ""
    batch_size: Annotated[int, between(1, 2**20)] = 960
    canvas: Pixels = (256, 128)
    threads: Annotated[int, between(0, 1024)] = 16
    max_skipped: Annotated[float, SHARE] = 0.001
    accept_changed: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """The network that is trained.

    Attributes:
      name: a backbone of `cion_jax.models`.
      dtype: compute type of the backbone while it trains; parameters, norms, heads and losses stay fp32.
      drop_path: highest rate of stochastic depth, in [0, 1); None is the family's own.
      remat: recompute the backbone's blocks in the backward pass: less memory, a third more work.
    """

    name: str = "resnet50_ibn"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    drop_path: Annotated[float | None, Bounds(0, 1, open_high=True)] = 0.0
    remat: bool = False


@dataclass(frozen=True)
class CoupledConfig:
    """SGD or Adam whose decay is a part of the gradient, of all parameters alike.

    Attributes:
      kind: see `training.optimizer`.
      learning_rate: base of the schedule; it is not scaled by the batch.
      weight_decay: of all parameters, norms and biases too.
      momentum: of SGD.
    """

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Rate = 4e-4
    weight_decay: Rate = 1e-4
    momentum: Annotated[float, SHARE] = 0.9


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, what to write.

    Attributes:
      epochs: length of the schedules.
      steps: stop after this many steps (0: after the last epoch); does not change the schedules.
      log_every: steps between metric rows.
      checkpoint_every: steps between checkpoints; the last step always has one.
      checkpoint_minutes: minutes after which there is one in any case; 0: steps alone count. What a run loses when it
        is killed is at most what it does in that time.
      keep: how many checkpoints to keep.
      accumulate: microbatches whose gradients are added up one after another: less memory. BatchNorm then normalizes
        by the statistics of a microbatch.
      grace: seconds from SIGTERM or SIGINT to the end of the process, whether its checkpoint is complete or not.
    """

    epochs: Annotated[int, between(1, 10**6)] = 100
    steps: Annotated[int, between(0, MAX_STEPS)] = 0
    log_every: Annotated[int, between(1, MAX_STEPS)] = 20
    checkpoint_every: Annotated[int, between(1, MAX_STEPS)] = 1000
    checkpoint_minutes: Annotated[float, between(0, 10**6)] = 15.0
    keep: Annotated[int, between(1, 10**6)] = 3
    accumulate: Annotated[int, between(1, 2**20)] = 1
    grace: Annotated[float, positive(10**6)] = 25.0


@dataclass(frozen=True)
class ProfileConfig:
    """What to look at closely.

    Attributes:
      steps: first and last step, as `metrics.jsonl` counts them, of a trace in WORKDIR/profile; empty: none.
    """

    steps: Annotated[tuple[int, ...], between(0, MAX_STEPS)] = ()


@dataclass(frozen=True)
class EvaluateConfig:
    """Scores while the run trains, as `cion-evaluate` gives them.

    Attributes:
      every: epochs between scores, each of which makes a checkpoint; 0: none.
      benchmark: its name.
      path: its folder; empty: `data.path`.
    """

    every: Annotated[int, between(0, 10**6)] = 0
    benchmark: str = "market1501"
    path: str = ""


@dataclass(frozen=True)
class RunConfig:
    """One training run; a run is a function of this, the data and nothing else.

    Attributes:
      task: what is learned, a name of `cion_jax.tasks`.
      seed: of initialization, batches and augmentation.
      init_from: a PyTorch or safetensors file, or a run folder, whose weights the run starts from. Empty: random. A
        resumed run does not read it again.
      init_ignore: regular expressions of names that the file may lack or have too many.
    """

    task: str = ""
    seed: Annotated[int, SEED] = 0
    init_from: str = ""
    init_ignore: tuple[str, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)

    epoch_length: ClassVar[str] = ""
    """Name of the setting of `data` that says how many steps an epoch has, where a task has one."""

    def validate(self) -> None:
        """Raises ConfigError where settings contradict each other."""
        if not self.data.path:
            raise ConfigError("config.data.path is empty; give the folder of the data, --config.data.path=DIR")
        local_path(self.data.path, "config.data.path")
        local_path(self.init_from, "config.init_from")
        local_path(self.evaluate.path, "config.evaluate.path")
        check_patterns(self.init_ignore, "config.init_ignore")
        size = self.data.batch_size * math.prod(self.data.canvas) * 3
        if size > MAX_BATCH_BYTES:
            raise ConfigError(
                f"a batch of config.data.batch_size={self.data.batch_size} images on canvases of {self.data.canvas} "
                f"pixels takes {size / 2**30:,.0f} GiB, expected at most {MAX_BATCH_BYTES / 2**30:.0f}"
            )
        length = getattr(self.data, self.epoch_length) if self.epoch_length else 0
        steps = self.train.epochs * length
        if steps > MAX_STEPS:
            raise ConfigError(
                f"config.train.epochs={self.train.epochs} epochs of config.data.{self.epoch_length}="
                f"{length} steps are {steps:,}, expected at most {MAX_STEPS:,}"
            )
        traced = self.profile.steps
        if traced and (len(traced) != 2 or not 1 <= traced[0] <= traced[1]):
            raise ConfigError(f"config.profile.steps takes a first and a last step, e.g. 10,20, got {traced}")

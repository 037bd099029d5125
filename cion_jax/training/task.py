"""What a task says about itself; everything else of a training run is the same for all (`step`, `loop`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from cion_jax.common.preprocessing import Preprocessing
from cion_jax.data.stream import Stream
from cion_jax.distributed.sharding import Rule
from cion_jax.training.config import RunConfig
from cion_jax.training.optimizer import Optimizer
from cion_jax.training.schedules import Schedule
from cion_jax.training.state import TrainState

Tree = Any


class Context(NamedTuple):
    """What a step is compiled for: its mesh, and what `Task.static` says of it."""

    mesh: jax.sharding.Mesh
    static: Hashable


class Prepared(NamedTuple):
    """A whole batch, made ready without gradients.

    Attributes:
      images: leaves [B, ...], one entry an image; they are dealt out to devices and microbatches.
      key: randomness of the loss.
      shared: leaves that every image needs.
      carried: leaves for `carry` alone.
    """

    images: Tree
    key: jax.Array
    shared: Tree = None
    carried: Tree = None


class Served(NamedTuple):
    """A network that maps images to features: graphdef, params and stats as `models.split` gives them."""

    name: str
    graphdef: Any
    params: Tree
    stats: Tree


class Beginning(NamedTuple):
    """Where an epoch begins, or goes on after a resume.

    Attributes:
      epoch: its number, from 0 on.
      mesh: of the run.
      workdir: of the run.
      resumed: None where the epoch begins; where it goes on, digest of the labels that its first part was trained on.
    """

    epoch: int
    mesh: jax.sharding.Mesh
    workdir: Path
    resumed: str | None


@dataclass(frozen=True)
class Begun:
    """What an epoch begins with.

    Attributes:
      state: of the run.
      stream: the batches of this epoch, or of this one and those that follow.
      row: measurements about the epoch, for a row of their own.
    """

    state: TrainState
    stream: Stream
    row: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """One way to train. A class is registered in `cion_jax.tasks.TASKS`, takes its settings, and names their dataclass
    `schema`.

    Attributes:
      config: of the run.
      fields: names of a batch's arrays that go to the devices.
      rules: how the task's own arrays are sharded, before the shared rules.
      served: where in a `TrainState` the network lies that evaluation and export take, e.g. ("kept", "teacher"): a
        tree {"params": ..., "stats": ...}.
      preprocessing: of the images that this network takes.
      shown: measurements that people see in the progress line: name -> label.
    """

    config: RunConfig
    fields: Sequence[str]
    rules: Sequence[Rule]
    served: tuple[str, ...]
    preprocessing: Preprocessing
    shown: Mapping[str, str]

    def check(self, mesh: jax.sharding.Mesh) -> None:
        """Raises ConfigError where the run does not fit on the mesh."""

    def stream(self) -> Stream:
        """The batches of the run."""

    def optimizer(self) -> Optimizer:
        """Kind and groups."""

    def schedules(self, steps_per_epoch: Sequence[int]) -> Mapping[str, Schedule]:
        """Values by name, as functions of the step; those that are numbers are logged."""

    def init(self) -> tuple[Tree, Tree]:
        """(trained {"params", "stats"}, kept) before the first step; traces under jit."""

    def backbone(self, network: Tree) -> Tree:
        """The plain backbone {"params", "stats"} within the trained or the served network."""

    def with_backbone(self, network: Tree, backbone: Tree) -> Tree:
        """The trained network with another backbone: the inverse of `backbone`."""

    def start(self, state: TrainState, weights: Tree) -> TrainState:
        """A fresh state that starts from weights {"params", "stats"} of the trained network's structure."""

    def serve(self, network: Tree) -> Served:
        """What evaluation and export take of the network at `served`, or of the trained one."""

    def static(self, stream: Stream, step: int) -> Hashable:
        """What of a step is part of the program: one is compiled for every value."""

    def heaviest(self) -> tuple[Hashable, int]:
        """(`static` of the steps that take most, of how many images a device's share is a multiple), to plan with."""

    def prepare(self, state: TrainState, batch: Mapping[str, jax.Array], key: jax.Array, context: Context) -> Prepared:
        """The whole batch without gradients: views, targets."""

    def loss(
        self, params: Tree, stats: Tree, images: Tree, shared: Tree, key: jax.Array, context: Context
    ) -> tuple[jax.Array, tuple[Tree, dict[str, jax.Array]]]:
        """Loss of a microbatch -> (loss, (stats after it, measurements))."""

    def carry(self, state: TrainState, params: Tree, prepared: Prepared, at: Mapping[str, jax.Array]) -> Tree:
        """What is kept after a step that led to `params`: averages, memories."""

    def begin_epoch(self, at: Beginning, state: TrainState, stream: Stream) -> Begun:
        """Called when an epoch is about to begin, or to go on after a resume; the same state and stream where nothing
        changes. In all processes the same."""

    def watch(self, measured: Mapping[str, float]) -> str | None:
        """A warning for people; None where all is well."""

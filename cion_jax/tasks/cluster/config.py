"""The settings of a run of cluster contrast; defaults are the released ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from cion_jax.common.bounds import SHARE, between, positive
from cion_jax.common.paths import local_path
from cion_jax.common.typed_config import ConfigError
from cion_jax.data import crops
from cion_jax.data.crops import CropSpec
from cion_jax.data.train_split import Protocol
from cion_jax.neighbors import shared
from cion_jax.tasks.cluster.memory import Update
from cion_jax.tasks.cluster.network import Pool
from cion_jax.training import config as training
from cion_jax.training.config import Rate


@dataclass(frozen=True)
class ModelConfig(training.ModelConfig):
    """Backbone and what stands behind it.

    Attributes:
      pool: `gem`, generalized mean of a ResNet's maps, or the backbone's `own`.
    """

    pool: Pool = "gem"
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class DataConfig(training.DataConfig):
    """Images without labels: a folder, a benchmark as it was unpacked, identity shards.

    Attributes:
      instances: K, images of one cluster in a batch; a batch has batch_size / K clusters.
      iterations: batches of an epoch.
      source: labelled images of another domain, in whatever form fine-tuning takes: half of every batch is of them, and
        the memory holds their people beside the clusters. Empty: none, as released.
      protocol: of MSMT17, which lists.
    """

    batch_size: Annotated[int, between(1, 2**20)] = 256
    instances: Annotated[int, between(1, 2**20)] = 8
    iterations: Annotated[int, between(1, 10**6)] = 200
    source: str = ""
    protocol: Protocol = "trainval"


@dataclass(frozen=True)
class DbscanConfig:
    """DBSCAN on Jaccard distances of k-reciprocal neighbors.

    Attributes:
      eps: distance up to which two images are neighbors; released: 0.6 on Market-1501, 0.7 on MSMT17.
      min_samples: neighbors, itself counted, of an image within a cluster.
      k1: nearest images that may be reciprocal neighbors, itself counted.
      k2: nearest images that a neighborhood is averaged over, itself counted.
    """

    eps: Annotated[float, positive(1)] = 0.6
    min_samples: Annotated[int, between(1, 10**6)] = 4
    k1: Annotated[int, between(2, 10**4)] = 30
    k2: Annotated[int, between(1, 10**4)] = 6

    def __post_init__(self) -> None:
        """Raises ValueError where k2 is beyond k1."""
        if self.k2 > self.k1:
            raise ValueError(f"k2={self.k2} of k1={self.k1} nearest images; give a k2 of at most {self.k1}")


@dataclass(frozen=True)
class SharedNeighborsConfig(shared.Settings):
    """Average linkage of how much neighborhoods overlap; see also `shared.Settings`.

    Attributes:
      min_images: of a cluster; images of smaller ones are outliers.
      center: take the mean of an image's camera off its features first.
      cannot_link: images of one video on one frame are of different people, unless they look like one found twice.
    """

    min_images: Annotated[int, between(2, 10**6)] = 4
    center: bool = True
    cannot_link: bool = True


@dataclass(frozen=True)
class LabelsConfig:
    """Pseudo labels: an epoch's clusters.

    Attributes:
      method: a name of `cion_jax.tasks.cluster.labels.PSEUDO_LABELS`.
      search: images up to which all are compared with all, above by ScaNN where it is installed; see `shared.Search`.
      dbscan, shared_neighbors: of the methods of these names.
    """

    method: str = "dbscan"
    search: shared.Search = field(default_factory=shared.Search)
    dbscan: DbscanConfig = field(default_factory=DbscanConfig)
    shared_neighbors: SharedNeighborsConfig = field(default_factory=SharedNeighborsConfig)


@dataclass(frozen=True)
class MemoryConfig:
    """Centroids that images are compared with.

    Attributes:
      size: clusters and people of the source that there is room for; 0: as many as there can be, half the images.
      momentum: share of a centroid that stays when an image changes it. The paper's code passes 0.1, the released one
        0.2: a fifth of the old centroid stays.
      temperature: tau, by which similarities are divided.
      update: which images of a batch change their cluster's centroid, its `hardest` or `every` one.
    """

    size: Annotated[int, between(0, 2**24)] = 0
    momentum: Annotated[float, SHARE] = 0.2
    temperature: Annotated[float, positive(100)] = 0.05
    update: Update = "hardest"


@dataclass(frozen=True)
class OptimizerConfig(training.CoupledConfig):
    """A rate that falls in steps.

    Attributes:
      decay_epochs: from which epochs on it is lower, each time by `decay_factor`; rising.
      decay_factor: see above.
    """

    learning_rate: Rate = 3.5e-4
    weight_decay: Rate = 5e-4
    decay_epochs: Annotated[tuple[int, ...], between(0, 10**6)] = (20, 40)
    decay_factor: Annotated[float, SHARE] = 0.1


@dataclass(frozen=True)
class Config(training.RunConfig):
    """One run of cluster contrast.

    Attributes:
      image: how training images are made; evaluation takes size, mean and std of it.
    """

    task: str = "cluster"
    epoch_length: ClassVar[str] = "iterations"
    seed: Annotated[int, between(0, 2**62)] = 1
    data: DataConfig = field(default_factory=DataConfig)
    train: training.LoopConfig = field(default_factory=lambda: training.LoopConfig(epochs=50, checkpoint_every=200))
    model: ModelConfig = field(default_factory=ModelConfig)
    image: CropSpec = crops.CLUSTER
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def validate(self) -> None:
        """Raises ConfigError where settings contradict each other."""
        super().validate()
        local_path(self.data.source, "config.data.source")
        clusters, rest = divmod(self.data.batch_size, self.data.instances)
        parts = 2 if self.data.source else 1
        if rest or clusters % parts or clusters < 2 * parts:
            multiple = self.data.instances * parts
            near = max(2, round(self.data.batch_size / multiple)) * multiple
            raise ConfigError(
                f"config.data.batch_size={self.data.batch_size} is no {'even ' if parts > 1 else ''}number of two or "
                f"more groups of config.data.instances={self.data.instances}; give e.g. {near}"
            )
        if list(self.optimizer.decay_epochs) != sorted(set(self.optimizer.decay_epochs)):
            raise ConfigError(f"config.optimizer.decay_epochs takes rising epochs, got {self.optimizer.decay_epochs}")

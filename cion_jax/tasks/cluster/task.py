"""Cluster contrast as a task: an epoch's clusters are its classes, their centroids the classifier."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax import models
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.data.cluster_batches import ClusterPlan, ClusterTimeline
from cion_jax.data.groups import Units
from cion_jax.data.image_files import Relabeled
from cion_jax.data.records import Index
from cion_jax.data.stream import IdentityStream, Stream
from cion_jax.data.target import Target, open_target
from cion_jax.data.train_split import open_people
from cion_jax.distributed import multihost, sharding
from cion_jax.distributed.sharding import Rule
from cion_jax.tasks._crops import OfCrops
from cion_jax.tasks.cluster import epoch, labels, memory
from cion_jax.tasks.cluster.config import Config
from cion_jax.tasks.cluster.network import NECK, NETWORKS, Unit
from cion_jax.training.optimizer import Group, Optimizer
from cion_jax.training.schedules import Schedule, constant
from cion_jax.training.state import TrainState
from cion_jax.training.task import Beginning, Begun, Context, Served


class Cluster(OfCrops):
    """The task of learning without labels; see `training.task.Task`.

    The memory is one of the network's running statistics: it has no gradient, follows the features batch by batch (of
    an accumulated batch, microbatch by microbatch), and is not part of what is served.
    """

    schema = Config
    rules = (Rule("p"), Rule("memory/centroids"))

    def __init__(self, config: Config):
        """Looks into the data where the config does not say for how many clusters there is to be room.

        Raises:
          DatasetError: no data there.
          ConfigError: no such method of pseudo labels, or no such network.
        """
        labels.PSEUDO_LABELS[config.labels.method]
        self.config = config
        if not config.memory.size:
            room = dataclasses.replace(config.memory, size=len(self.target) // 2 + self.people)
            self.config = dataclasses.replace(config, memory=room)
        image = config.image
        self.preprocessing = Preprocessing((image.height, image.width), image.mean, image.std)

    @cached_property
    def target(self) -> Target:
        """The images without labels."""
        return open_target(self.config.data.path, self.config.data.protocol)

    @cached_property
    def source(self) -> Any:
        """A reader of the images with labels; None without a source."""
        data = self.config.data
        return open_people(data.source, data.protocol) if data.source else None

    @property
    def people(self) -> int:
        """How many people the source has: rows of the memory before those of the clusters."""
        return self.source.index.identities if self.source else 0

    def check(self, mesh: Mesh) -> None:
        """Raises ConfigError where devices would cut groups."""
        data = self.config.data
        sharding.check_batch(data.batch_size, [data.instances], self.config.train.accumulate, mesh)

    def stream(self) -> IdentityStream:
        """The data, without labels yet."""
        return self._stream(0, np.full(len(self.target), -1), "")

    def optimizer(self) -> Optimizer:
        """Everything is treated alike."""
        settings = self.config.optimizer
        return Optimizer(settings.kind, (Group("all", ""),), momentum=settings.momentum)

    def schedules(self, steps_per_epoch: Sequence[int]) -> dict[str, Schedule]:
        """A rate that falls in steps."""
        settings = self.config.optimizer
        first = jnp.array([sum(steps_per_epoch[:number]) for number in settings.decay_epochs] or [2**31 - 1])

        def rate(step: Any) -> jax.Array:
            falls = jnp.searchsorted(first, jnp.asarray(step), side="right")
            return settings.learning_rate * settings.decay_factor**falls

        return {"learning_rate": rate, "weight_decay": partial(constant, value=settings.weight_decay)}

    def network(self) -> Unit:
        """The network with random parameters from the run's seed."""
        m = self.config.model
        kw: dict[str, Any] = {"dtype": jnp.dtype(m.dtype), "drop_path": m.drop_path, "remat": m.remat}
        return NETWORKS[m.pool](m.name, **kw, rngs=nnx.Rngs(self.config.seed))

    def init(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A memory without clusters; nothing is kept besides."""
        network = self.network()
        _, params, stats = models.split(network)
        empty = jnp.zeros((self.config.memory.size, network.features), jnp.float32)
        stats["memory"] = {"centroids": empty, "count": jnp.zeros((), jnp.int32)}
        return {"params": params, "stats": stats}, {}

    def serve(self, network: dict[str, Any]) -> Served:
        """The feature that is clustered, in float32."""
        name = f"{self.config.model.name}+{NECK[self.config.model.pool]}"
        return Served(name, models.split(models.abstract(name))[0], network["params"], _split(network["stats"])[0])

    def static(self, stream: Stream, step: int) -> int:
        """One program for all steps."""
        return 0

    def heaviest(self) -> tuple[int, int]:
        """Every step; K."""
        return 0, self.config.data.instances

    def loss(
        self, params: Any, stats: Any, images: Any, shared: Any, key: jax.Array, context: Context
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """Contrast with the memory as it was before the batch; the memory after it."""
        (x_BHWC, label_B), settings = images, self.config.memory
        stats, (centroids_CD, count) = _split(stats)
        module = models.merge(self.graphdef, sharding.gather(params, context.mesh, self.rules), stats)
        x_BD = module(x_BHWC, train=True, key=key)
        logits_BC = memory.logits(x_BD, centroids_CD, count, settings.temperature)
        loss = memory.contrast(logits_BC, label_B)
        after_CD = memory.updated(centroids_CD, x_BD, label_B, settings.momentum, settings.update)
        measured = {"accuracy": jnp.mean(logits_BC.argmax(-1) == label_B)}
        stats = models.split(module)[2] | {"memory": {"centroids": after_CD, "count": count}}
        return loss, (stats, measured)

    def begin_epoch(self, at: Beginning, state: TrainState, stream: Stream) -> Begun:
        """Features, clusters and a new memory; after a resume within the epoch its labels as they were.

        Process 0 finds the clusters; the others are told, so that rounding on other machines makes no difference.
        """
        if at.resumed is not None:
            label = labels.read_again(at.workdir, at.epoch, at.resumed, len(self.target))
            return Begun(state, self._stream(at.epoch, label, at.resumed))
        began = time.monotonic()
        features = self._features(state, at, self.target.reader, "embedding")
        of_source = self._features(state, at, self.source, "embedding the source") if self.source else features[:0]
        embedded = time.monotonic()
        label = multihost.of_first_array(lambda: self._clusters(features), (len(features),), np.int64)
        clustered = time.monotonic()
        config, people = self.config, self.people
        epoch.check(label, config.memory.size - people, at.epoch, config)
        row = epoch.measured(features, label, labels.read(at.workdir, at.epoch - 1), self.target.truth)
        multihost.say(epoch.describe(at.epoch, row))
        if jax.process_index() == 0:
            labels.write(at.workdir, at.epoch, label)
        both = np.concatenate([of_source, features]), self._joint(label)
        size = config.memory.size, features.shape[1]
        found = multihost.of_first_array(lambda: epoch.centroids(*both, size[0]), size, np.float32)
        row |= {"embedding_seconds": embedded - began, "clustering_seconds": clustered - embedded}
        state = _with_memory(state, found, int(both[1].max()) + 1, at.mesh)
        return Begun(state, self._stream(at.epoch, label, labels.digest(label)), row)

    def watch(self, measured: Mapping[str, float]) -> str | None:
        """Nothing within an epoch."""
        return None

    def _features(self, state: TrainState, at: Beginning, reader: Any, what: str) -> np.ndarray:
        served, everyone = self.serve(state.trained), np.arange(len(reader))
        return self.features(served, reader, everyone, at.mesh, f"epoch {at.epoch}: {what}")

    def _clusters(self, features: np.ndarray) -> np.ndarray:
        known = self.target
        return labels.clusters(labels.Sightings(features, known.camera, known.video, known.frame), self.config.labels)

    def _joint(self, label: np.ndarray) -> np.ndarray:
        """Rows of the memory of all images: people of the source, then clusters."""
        people = self.source.index.identity if self.source else np.zeros(0, np.int64)
        return np.concatenate([people, np.where(label >= 0, label + self.people, -1)])

    def _stream(self, number: int, label: np.ndarray, digest: str) -> IdentityStream:
        """The batches of one epoch."""
        data, config = self.config.data, self.config
        whole, first = self._joint(label), len(self.source) if self.source else 0
        timeline = ClusterTimeline(config.train.epochs, data.iterations, data.batch_size, data.instances, number)
        readers = [*([self.source] if self.source else []), self.target.reader]
        camera = np.concatenate([np.full(first, -1), self.target.camera])
        inside = np.arange(len(whole)) < first
        sides = [np.where(inside, whole, -1)] if first else []
        sides.append(np.where(inside | (whole < 0), -1, whole - self.people))

        def plan(number: int, k: int) -> ClusterPlan:
            return ClusterPlan(sides, camera, config.seed, number, data.iterations, data.batch_size // k, k)

        units = Units.of(Index(np.arange(len(whole)), np.arange(len(whole))), "instance")
        reader = Relabeled(readers, whole)
        return _Stream(reader, units, timeline, plan, data.canvas, data.threads, labels=digest)


class _Stream(IdentityStream):
    """A stream that says of itself that nobody is known."""

    def describe(self) -> str:
        """Number of images."""
        known = int((self.reader.index.identity >= 0).sum())
        return f"{len(self.units) - known:,} images without labels" + (f" and {known:,} with" if known else "")


def _split(stats: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, Any]]:
    """The network's own statistics, and the memory: centroids and how many of them are in use."""
    own = {name: tree for name, tree in stats.items() if name != "memory"}
    return own, (stats["memory"]["centroids"], stats["memory"]["count"])


def _with_memory(state: TrainState, centroids: np.ndarray, count: int, mesh: Mesh) -> TrainState:
    whole = NamedSharding(mesh, P())
    arrays = {"centroids": centroids, "count": np.array(count, np.int32)}
    put = {n: jax.make_array_from_callback(a.shape, whole, a.__getitem__) for n, a in arrays.items()}
    trained = state.trained | {"stats": state.trained["stats"] | {"memory": put}}
    return dataclasses.replace(state, trained=trained)

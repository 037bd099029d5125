"""Supervised fine-tuning as a task: a backbone, a neck and a classifier of the people in the data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from cion_jax import models
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.common.typed_config import ConfigError
from cion_jax.data.stream import IdentityStream, Stream
from cion_jax.data.train_split import open_people
from cion_jax.distributed import sharding
from cion_jax.distributed.sharding import Rule
from cion_jax.models.vit import GRID, resized
from cion_jax.tasks._crops import OfCrops
from cion_jax.tasks.supervised import classifier, losses, necks, schedules
from cion_jax.tasks.supervised.config import Config
from cion_jax.training.optimizer import Group, Optimizer
from cion_jax.training.schedules import Schedule, constant, from_step, steps_in
from cion_jax.training.state import TrainState
from cion_jax.training.task import Beginning, Begun, Context, Served

# "bias" is found in Swin's tables of relative positions, too, as in the released code.
GROUPS = {
    "bnneck": (Group("biases", "bias", learning_rate="learning_rate_bias"), Group("all", "")),
    "mgn": (Group("backbone", "^(backbone|b1|b2|b3)/", trains="backbone_trains"), Group("heads", "")),
}


class Supervised(OfCrops):
    """The task of fine-tuning; see `training.task.Task`."""

    schema = Config
    rules = (Rule("classifier/kernel", ("model",), whole=True), Rule("p"))

    def __init__(self, config: Config):
        """Looks into the data where the config does not say of how many people it is.

        Raises:
          DatasetError, PlanError: no data there, or none that fits the settings.
        """
        if not config.model.classes:
            classes = _open(config).reader.index.identities
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, classes=classes))
        self.config = config
        image = config.image
        self.preprocessing = Preprocessing((image.height, image.width), image.mean, image.std)

    def check(self, mesh: Mesh) -> None:
        """Raises ConfigError where devices would cut identity groups, or a microbatch has one person."""
        data, accumulate = self.config.data, self.config.train.accumulate
        sharding.check_batch(data.batch_size, [data.instances], accumulate, mesh)
        people = data.batch_size // accumulate // data.instances
        if people < 2:
            raise ConfigError(
                f"a microbatch of {data.batch_size // accumulate} images has {people} person (K = {data.instances}), "
                "so nothing to tell it from; lower config.train.accumulate or config.data.instances"
            )

    def stream(self) -> IdentityStream:
        """P x K with distinct people in a batch; raises ConfigError where these are not as many as the classes."""
        stream = _open(self.config)
        found, classes = stream.reader.index.identities, self.config.model.classes
        if found != classes:
            raise ConfigError(
                f"config.model.classes={classes}, the data has {found} people; give that, or 0 for as many as there are"
            )
        return stream

    def optimizer(self) -> Optimizer:
        """Biases have a rate of their own (TransReID); backbone and branches join later (MGN)."""
        settings = self.config.optimizer
        return Optimizer(settings.kind, GROUPS[self.config.model.method], momentum=settings.momentum)

    def schedules(self, steps_per_epoch: Sequence[int]) -> dict[str, Schedule]:
        """TransReID's rates change from epoch to epoch, MGN's from step to step."""
        settings, epochs = self.config.optimizer, self.config.train.epochs
        base, decay = settings.learning_rate, partial(constant, value=settings.weight_decay)
        if self.config.model.method == "mgn":
            rate = partial(
                schedules.mgn,
                base=base,
                steps=sum(steps_per_epoch),
                warmup=steps_in(settings.warmup_epochs, steps_per_epoch),
                flat=steps_in(settings.flat_epochs, steps_per_epoch),
            )
            trains = partial(from_step, first=self._first_whole_step(steps_per_epoch))
            return {"learning_rate": rate, "weight_decay": decay, "backbone_trains": trains}
        ends = jnp.cumsum(jnp.array(steps_per_epoch))

        def rate_of(step: Any, factor: float) -> jax.Array:
            epoch = jnp.searchsorted(ends, step, side="right")
            return schedules.transreid(epoch, base, factor, epochs=epochs, warmup=settings.warmup_epochs)

        rates = {"learning_rate": 1.0, "learning_rate_bias": settings.bias_rate}
        return {"weight_decay": decay, **{name: partial(rate_of, factor=factor) for name, factor in rates.items()}}

    def network(self) -> nnx.Module:
        """The network with random parameters from the run's seed."""
        m, seed = self.config.model, self.config.seed
        kw: dict[str, Any] = {"dtype": jnp.dtype(m.dtype), "remat": m.remat, "rngs": nnx.Rngs(seed)}
        if m.method == "mgn":
            return necks.MGN(m.name, m.classes, **kw)
        return necks.BNNeckNetwork(m.name, m.classes, drop_path=m.drop_path, resampled=m.resampled_positions, **kw)

    def init(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Nothing is kept besides the network."""
        _, params, stats = models.split(self.network())
        return {"params": params, "stats": stats}, {}

    def backbone(self, network: dict[str, Any]) -> dict[str, Any]:
        """The plain backbone within a network; MGN's first branch."""
        if self.config.model.method == "mgn":
            return {kind: necks.joined(tree) for kind, tree in network.items()}
        return super().backbone(network)

    def with_backbone(self, network: dict[str, Any], backbone: dict[str, Any]) -> dict[str, Any]:
        """The network with another backbone; MGN's branches all start from it."""
        if self.config.model.method == "mgn":
            return {kind: tree | necks.spread(backbone[kind]) for kind, tree in network.items()}
        return super().with_backbone(network, backbone)

    def serve(self, network: dict[str, Any]) -> Served:
        """The recipe's feature, in float32: of the backbone alone, with the neck, or MGN's parts."""
        return self.serve_as(network, self.config.model.served)

    def serve_as(self, network: dict[str, Any], served: necks.Served) -> Served:
        """The same with the feature before or after the neck, whatever the recipe serves."""
        m = self.config.model
        if m.resampled_positions:  # once and for all: the served network is a ViT like any other
            network = self.with_backbone(network, _resampled(self.backbone(network)))
        if served == "before":
            name, trees = m.name, self.backbone(network)
        else:
            name = f"{m.name}+{m.method}"
            trees = {kind: necks.without_classifiers(tree) for kind, tree in network.items()}
        return Served(name, models.split(models.abstract(name))[0], trees["params"], trees["stats"])

    def static(self, stream: Stream, step: int) -> bool:
        """Whether MGN's backbone is frozen."""
        return self.config.model.method == "mgn" and step < self._first_whole_step(stream.steps_per_epoch)

    def heaviest(self) -> tuple[bool, int]:
        """Everything trains; K."""
        return False, self.config.data.instances

    def loss(
        self, params: Any, stats: Any, images: Any, shared: Any, key: jax.Array, context: Context
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """Identity and triplet losses of whole identity groups; triplets are mined within the microbatch."""
        x_BHWC, label_B = images
        module = models.merge(self.graphdef, sharding.gather(params, context.mesh, self.rules), stats)
        smoothing, normalized = self.config.loss.smoothing, self.config.loss.normalized
        if self.config.model.method == "mgn":
            parts = module(x_BHWC, train=True, frozen=context.static)
            terms = losses.mgn(parts.features, parts.cosines, label_B, smoothing)
            logits_BC, x_BD = parts.cosines.mean(1), parts.features.reshape(len(x_BHWC), -1)
        else:
            out = module(x_BHWC, train=True, key=key)
            terms = losses.bnneck(out.features, out.logits, label_B, smoothing, normalized)
            logits_BC, x_BD = out.logits, losses.triplet_features(out.features, normalized)
        measured = {name: term.sum() for name, term in terms.items()}
        loss = measured["identity"] + measured["triplet"]
        measured["accuracy"] = jnp.mean(logits_BC.argmax(-1) == label_B)
        measured["spread"] = jnp.sqrt(x_BD.astype(jnp.float32).var(0).sum())
        return loss, (models.split(module)[2], measured)

    def begin_epoch(self, at: Beginning, state: TrainState, stream: IdentityStream) -> Begun:
        """A run that begins gets its classifier; else nothing changes: the identities are known."""
        if self.config.model.classifier == "means" and at.epoch == 0 and at.resumed is None:
            state = classifier.from_means(self, state, stream.reader, at.mesh)
        return Begun(state, stream)

    def watch(self, measured: Mapping[str, float]) -> str | None:
        """Warns where all images look alike."""
        return collapse_warning(measured["triplet"], measured["spread"], self.config.model.method)

    def _first_whole_step(self, steps_per_epoch: Sequence[int]) -> int:
        """The first step that trains everything; as released, one later than the frozen epochs end."""
        frozen = self.config.optimizer.frozen_epochs
        return steps_in(frozen, steps_per_epoch) + 1 if frozen else 0


def _resampled(backbone: dict[str, Any]) -> dict[str, Any]:
    """A ViT's trees whose position embeddings are those that the network in training adds."""
    params = backbone["params"]
    return backbone | {"params": params | {"pos_embed": resized(params["pos_embed"], *GRID, always=True)}}


def collapse_warning(triplet: float, spread: float, method: str) -> str | None:
    """What the triplet loss and the features' spread (root mean square distance from their mean) say about collapse;
    None where all is well. A loss on its way passes through log 2, too: with features that differ."""
    alike = math.log(2)  # of equal distances, by the soft margin
    if abs(triplet - alike) > 1e-3 or spread > 0.1:
        return None
    return (
        f"the triplet loss is {triplet:.4f}, that of features that are all alike (log 2 = {alike:.4f}); lower "
        f"optimizer.learning_rate, lengthen optimizer.warmup_epochs ({method}), or start from weights (init_from)"
    )


def _open(config: Config) -> IdentityStream:
    data = config.data
    people = open_people(data.path, data.protocol)
    endless = max(len(people) // data.batch_size, 1) if config.model.method == "mgn" else None
    return IdentityStream.of_distinct_people(
        people,
        epochs=config.train.epochs,
        batch_size=data.batch_size,
        k=data.instances,
        seed=config.seed,
        steps_per_epoch=data.steps_per_epoch or endless,
        turns=data.turns,
        canvas=data.canvas,
        threads=data.threads,
    )

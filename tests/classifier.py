"""A second task in a few lines: a linear classifier of identities on a small backbone, any number of classes."""

from dataclasses import dataclass, field
from functools import partial

import jax.numpy as jnp
import optax
from flax import nnx

from cion_jax import models
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.distributed import sharding
from cion_jax.distributed.sharding import Rule
from cion_jax.models import layers, registry
from cion_jax.tasks import TASKS
from cion_jax.tasks.distill.config import DataConfig
from cion_jax.tasks.distill.task import Distill
from cion_jax.training.config import RunConfig
from cion_jax.training.optimizer import Group, Optimizer
from cion_jax.training.schedules import constant
from cion_jax.training.task import Prepared, Served


@dataclass(frozen=True)
class Config(RunConfig):
    task: str = "classifier"
    identity: str = "identity"
    classes: int = 751
    data: DataConfig = field(default_factory=DataConfig)
    curriculum = ((0, 2),)


class Network(nnx.Module):
    def __init__(self, classes, rngs):
        self.backbone = registry.create("toy", rngs=rngs)
        self.classifier = layers.Linear(16, classes, dtype=jnp.float32, rngs=rngs)


class Classifier:
    schema, fields, served, shown = Config, ("image", "identity"), ("trained",), {"accuracy": "accuracy"}
    rules = (Rule("classifier/kernel", ("model",), whole=True),)
    preprocessing = Preprocessing((32, 16))
    stream, static, begin_epoch = Distill.stream, Distill.static, Distill.begin_epoch

    def __init__(self, config):
        self.config = config
        self.graphdef = models.split(nnx.eval_shape(lambda: Network(config.classes, nnx.Rngs(0))))[0]

    def check(self, mesh):
        sharding.check_batch(self.config.data.batch_size, [2], self.config.train.accumulate, mesh)

    def optimizer(self):
        return Optimizer("sgd", [Group("all", "")])

    def schedules(self, steps_per_epoch):
        return {"learning_rate": partial(constant, value=0.05), "weight_decay": partial(constant, value=1e-4)}

    def init(self):
        _, params, stats = models.split(Network(self.config.classes, nnx.Rngs(self.config.seed)))
        return {"params": params, "stats": stats}, {}

    def serve(self, network):
        graphdef = models.split(models.abstract("toy"))[0]
        return Served("toy", graphdef, network["params"]["backbone"], network["stats"]["backbone"])

    def prepare(self, state, batch, key, context):
        return Prepared((batch["image"][..., :32, :16, :] / 255.0, batch["identity"]), key)

    def loss(self, params, stats, images, shared, key, context):
        network = models.merge(self.graphdef, sharding.gather(params, context.mesh, self.rules), stats)
        logits = network.classifier(network.backbone(images[0], train=True, key=key))
        right = jnp.mean(logits.argmax(-1) == images[1])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, images[1]).mean()
        return loss, (models.split(network)[2], {"accuracy": right})

    def carry(self, state, params, prepared, at):
        return {}

    def watch(self, measured):
        return None


TASKS.register("classifier", Classifier)

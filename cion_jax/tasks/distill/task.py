"""Identity-guided self-distillation (arXiv 2409.18569) as a task: a student, and a teacher that is its average."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cion_jax import models
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.data.stream import IdentityStream, Stream
from cion_jax.data.views import make_views
from cion_jax.distributed import sharding
from cion_jax.distributed.sharding import BATCH, Rule
from cion_jax.models.options import check_shares
from cion_jax.tasks.distill.config import Config
from cion_jax.tasks.distill.head import product
from cion_jax.tasks.distill.loss import (
    Axes,
    Logits,
    Targets,
    chunks,
    dimensions,
    identity_contrast,
    make_targets,
    student_loss,
)
from cion_jax.tasks.distill.network import Network
from cion_jax.training.optimizer import Group, Optimizer, ema
from cion_jax.training.schedules import Schedule, cosine, from_step, steps_in
from cion_jax.training.state import TrainState
from cion_jax.training.task import Beginning, Begun, Context, Prepared, Served

AXES = Axes(images=("data", "fsdp"), prototypes=("model",))
KERNEL, SHIFT = P(None, "model"), P("model")
TARGETS: Any = Targets(SHIFT, BATCH)  # type: ignore[arg-type]  # where the arrays lie instead of them
GROUPS = (
    Group("frozen", "weight_g$", trains=False),
    Group("last_layer", "last_layer", decay="matrices", trains="last_layer_trains"),
    Group("trained", "", decay="matrices"),
)


class Distill:
    """The task of pre-training; see `training.task.Task`."""

    schema = Config
    fields = ("image", "size")
    rules = (
        Rule("last_layer/weight_v", (None, "model")),
        Rule("last_layer/weight_g", ("model",)),
        Rule("center", ("model",)),
    )
    served = ("kept", "teacher")

    def __init__(self, config: Config):
        self.config = config
        view = config.views.global_1
        self.preprocessing = Preprocessing((view.height, view.width))
        self.shown = {"teacher_entropy": "teacher entropy"} if self.prototypes else {}
        self.shown |= {"teacher_dimensions": "dimensions"}

    @property
    def prototypes(self) -> bool:
        """Whether anything is learned from the prototypes; where not, their loss is not computed."""
        return self.config.loss.contrast < 1

    def check(self, mesh: Mesh) -> None:
        """Raises ConfigError where devices would cut identity groups or the network is for one device alone, UserError
        where prototypes have no divisors."""
        check_shares(self.config.model.options, mesh.shape["data"] * mesh.shape["fsdp"])
        ks = [k for _, k in self.config.curriculum]
        sharding.check_batch(self.config.data.batch_size, ks, self.config.train.accumulate, mesh)
        chunks(self.config.model.prototypes // mesh.shape["model"], self.config.loss.chunk)

    def stream(self) -> IdentityStream:
        """Identity groups from identity shards."""
        data = self.config.data
        return IdentityStream.open(
            data.path,
            kind=self.config.identity,
            epochs=self.config.train.epochs,
            batch_size=data.batch_size,
            curriculum=self.config.curriculum,
            seed=self.config.seed,
            steps_per_epoch=data.steps_per_epoch,
            turns=data.turns,
            canvas=data.canvas,
            threads=data.threads,
        )

    def optimizer(self) -> Optimizer:
        """AdamW; the prototypes join later, their norms never."""
        settings = self.config.optimizer
        return Optimizer("adamw", GROUPS, clip=settings.clip, betas=settings.betas)

    def schedules(self, steps_per_epoch: Sequence[int]) -> dict[str, Schedule]:
        """Cosines that span all epochs, whatever their numbers of steps (these change with K)."""
        settings, steps = self.config.optimizer, sum(steps_per_epoch)
        peak = settings.learning_rate * self.config.data.batch_size / 256
        warmup = steps_in(settings.warmup_epochs, steps_per_epoch)
        start, end = settings.weight_decay
        return {
            "learning_rate": partial(cosine, start=peak, end=settings.final_learning_rate, steps=steps, warmup=warmup),
            "weight_decay": partial(cosine, start=start, end=end, steps=steps),
            "momentum": partial(cosine, start=settings.teacher_momentum, end=1.0, steps=steps),
            "last_layer_trains": partial(from_step, first=steps_in(settings.freeze_epochs, steps_per_epoch)),
        }

    def network(self) -> Network:
        """The network with random parameters from the run's seed."""
        m = self.config.model
        return Network(
            m.name,
            prototypes=m.prototypes,
            hidden=m.hidden,
            bottleneck=m.bottleneck,
            dtype=jnp.dtype(m.dtype),
            drop_path=m.drop_path,
            remat=m.remat,
            options=m.options,
            rngs=nnx.Rngs(self.config.seed),
        )

    @cached_property
    def graphdef(self) -> Any:
        """The network's structure without arrays."""
        return models.split(nnx.eval_shape(self.network))[0]

    def init(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The teacher equals the student, the center is zero."""
        _, params, stats = models.split(self.network())
        student = {"params": params, "stats": stats}
        center = jnp.zeros(self.config.model.prototypes, jnp.float32)
        return student, {"teacher": jax.tree.map(jnp.copy, student), "center": center}

    def backbone(self, network: dict[str, Any]) -> dict[str, Any]:
        """The backbone, without the head."""
        return {kind: tree.get("backbone", {}) for kind, tree in network.items()}

    def with_backbone(self, network: dict[str, Any], backbone: dict[str, Any]) -> dict[str, Any]:
        """The network with another backbone."""
        return {kind: tree | ({"backbone": backbone[kind]} if backbone[kind] else {}) for kind, tree in network.items()}

    def start(self, state: TrainState, weights: dict[str, Any]) -> TrainState:
        """Student and teacher both start from `weights`."""
        kept = state.kept | {"teacher": jax.tree.map(jnp.copy, weights)}
        return dataclasses.replace(state, trained=weights, kept=kept)

    def static(self, stream: Stream, step: int) -> int:
        """K: how many images a group has."""
        return stream.at(step).k

    def heaviest(self) -> tuple[int, int]:
        """The last K, and all Ks' least common multiple."""
        ks = [k for _, k in self.config.curriculum]
        return ks[-1], math.lcm(*ks)

    def prepare(self, state: TrainState, batch: Mapping[str, jax.Array], key: jax.Array, context: Context) -> Prepared:
        """Views, the teacher's embeddings of the global ones, and what it says of them."""
        key_views, key_student, key_teacher = jax.random.split(key, 3)
        x_BUHWC, x_BLHWC = make_views(key_views, batch["image"], batch["size"], self.config.views)
        views = (x_BUHWC, x_BLHWC) if self.config.views.local_views else (x_BUHWC,)
        (x_BUF, kernel_FP), stats = self._apply(state.kept["teacher"], (x_BUHWC,), key_teacher, context.mesh)
        # The logits [B, V, P] are split over images and prototypes; every device sees its own share of them only.
        targets, center_P = jax.shard_map(
            self._targets, mesh=context.mesh, in_specs=(BATCH, KERNEL, SHIFT), out_specs=(TARGETS, SHIFT)
        )(x_BUF, kernel_FP, state.kept["center"])
        return Prepared(
            images=(views, x_BUF, targets.norm_BU, jnp.arange(len(x_BUF))),
            shared=(kernel_FP, targets.shift_P, x_BUF),
            key=key_student,
            carried={"stats": stats, "center": center_P},
        )

    def loss(
        self, params: Any, stats: Any, images: Any, shared: Any, key: jax.Array, context: Context
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """Cross entropy of the student's views against the teacher's (`loss.student_loss`), and `loss.contrast`."""
        (views, x_BUF, norm_BU, image_B), (kernel_FP, shift_P, teacher_NUF) = images, shared
        student, stats = self._apply({"params": params, "stats": stats}, views, key, context.mesh)
        share, loss = self.config.loss.contrast, jnp.zeros(())
        measured = {"teacher_dimensions": dimensions(teacher_NUF)}
        if self.prototypes:
            loss, said = jax.shard_map(
                partial(self._loss, context.static),
                mesh=context.mesh,
                in_specs=((BATCH, KERNEL), (BATCH, KERNEL), TARGETS),
                out_specs=(P(), P()),
            )(student, (x_BUF, kernel_FP), Targets(shift_P, norm_BU))
            measured |= said
        if share:
            k, temperature = cast(int, context.static), self.config.loss.contrast_temperature
            contrast = identity_contrast(student[0], image_B, teacher_NUF, k, temperature)
            loss, measured = (1 - share) * loss + share * contrast, measured | {"contrast": contrast}
        return loss, (stats, measured)

    def carry(self, state: TrainState, params: Any, prepared: Prepared, at: Mapping[str, jax.Array]) -> dict[str, Any]:
        """The teacher follows the student; its statistics are its own."""
        average = ema(state.kept["teacher"]["params"], params, at["momentum"])
        teacher = {"params": average, "stats": prepared.carried["stats"]}
        return {"teacher": teacher, "center": prepared.carried["center"]}

    def serve(self, network: dict[str, Any]) -> Served:
        """The backbone alone, in float32."""
        name = self.config.model.name
        graphdef = models.split(models.abstract(name))[0]
        return Served(name, graphdef, network["params"]["backbone"], network["stats"].get("backbone", {}))

    def begin_epoch(self, at: Beginning, state: TrainState, stream: Stream) -> Begun:
        """Nothing changes: the identities are known."""
        return Begun(state, stream)

    def watch(self, measured: Mapping[str, float]) -> str | None:
        """Warns of a collapse; prototypes that nothing learns from have none."""
        if not self.prototypes:
            return None
        return collapse_warning(measured["teacher_entropy"], self.config.model.prototypes)

    def _apply(self, network: dict[str, Any], views: Any, key: jax.Array, mesh: Mesh) -> Any:
        """Train-mode forward pass -> ((embeddings, prototypes), statistics after). The teacher, too, normalizes with
        its own batch statistics and keeps running ones of its own, as in the released code."""
        params = sharding.gather(network["params"], mesh, self.rules)
        module = models.merge(self.graphdef, params, network["stats"])
        return module(views, train=True, key=key), models.split(module)[2]

    @jax.named_scope("loss")
    def _targets(self, x_BUF: jax.Array, kernel_FP: jax.Array, center_P: jax.Array) -> tuple[Targets, jax.Array]:
        return make_targets(self._logits(x_BUF, kernel_FP), center_P, self.config.loss, AXES)

    @jax.named_scope("loss")
    def _loss(self, k: Any, student: Any, teacher: Any, targets: Targets) -> tuple[jax.Array, dict[str, jax.Array]]:
        return student_loss(self._logits(*student), self._logits(*teacher), targets, k, self.config.loss, AXES)

    def _logits(self, x_BVF: jax.Array, kernel_FP: jax.Array) -> Logits:
        # Said before the loop over chunks, so that their gradients cross devices once, after it.
        x_BVF = jax.lax.pcast(x_BVF, AXES.prototypes, to="varying")
        kernel_FP = jax.lax.pcast(kernel_FP, AXES.images, to="varying")
        # In the type of the products from here on: half the bytes in every part, the same numbers.
        dtype = jnp.dtype(self.config.model.dtype)
        return Logits.against(x_BVF, kernel_FP.astype(dtype), partial(product, dtype=dtype), self.config.loss.chunk)


def collapse_warning(entropy: float, prototypes: int) -> str | None:
    """What the teacher's entropy (nats) says about collapse; None where all is well."""
    greatest = math.log(prototypes)
    if entropy < 0.01 * greatest:
        return (
            f"the teacher puts everything on one prototype (entropy {entropy:.3f} of {greatest:.2f} nats); "
            "lower optimizer.learning_rate or loss.center_momentum"
        )
    if entropy > 0.999 * greatest:
        return (
            f"the teacher's output is uniform (entropy {entropy:.3f} of {greatest:.2f} nats); "
            "lower loss.teacher_temperature or raise optimizer.learning_rate"
        )
    return None

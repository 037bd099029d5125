"""What `benchmarks.device_parity` computes on two kinds of device: numbers of backbones, head, loss, views and steps.

Parameters and images are drawn on the host, so that both sides start from the same ones; biases are not zero, as one
that is forgotten would not show.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax import models
from cion_jax.common import typed_config
from cion_jax.common.paths import path_name
from cion_jax.data.views import ViewsConfig, make_views
from cion_jax.distributed import sharding
from cion_jax.distributed.sharding import BATCH, MeshConfig
from cion_jax.models.layers import wide
from cion_jax.tasks import TASKS
from cion_jax.tasks.distill.head import Head, product
from cion_jax.tasks.distill.loss import Logits, LossConfig, make_targets, student_loss
from cion_jax.training.step import init_state, make_trainer

Numbers = dict[str, np.ndarray]
BATCH_SIZE, HEIGHT, WIDTH = 8, 128, 64  # a local view; one image for each of eight devices
K, PROTOTYPES = 2, 512
FILLS = {
    "mean": 0.0,
    "var": 1.0,
    "scale": 1.0,
    "weight_g": 1.0,
    "temperature": 1.0,
    "p": 3.0,
}  # what others vary around
SPREAD = 0.1
BRANCH = 0.1  # what a branch adds, of the drawn networks that are chaotic at 1; training leaves it small as well
_BRANCH_ENDS = re.compile(
    r"conv[234]/\d/conv3/bn/scale$"  # OSNet
    r"|layer\d/\d+/bn3/scale$"  # ResNet-50 and deeper
    r"|channel_mixer/m/2/bn/scale$|token_mixer/0/conv1/kernel$"  # RepViT
)
TASK_SETTINGS: dict[str, dict[str, Any]] = {
    "distill": {
        "model.prototypes": PROTOTYPES,
        "model.hidden": 128,
        "model.bottleneck": 64,
        "data.curriculum": ((0, 1),),
        "views.local_views": 2,
        "loss.chunk": PROTOTYPES // 2,
    }
    | {f"views.{v}.{n}": x for v in ("global_1", "global_2") for n, x in (("height", HEIGHT), ("width", WIDTH))}
    | {"views.local.height": HEIGHT // 2, "views.local.width": WIDTH // 2},
    "supervised": {"model.classes": 16, "data.instances": 1},
    "cluster": {"memory.size": 16, "data.instances": 1},
}


def draw(like: Any) -> Any:
    """Numbers for a tree of shapes, by path: kernels as large as their fan-in says, all others near their fill."""
    names = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(like)}

    def one(path: Any, leaf: Any) -> np.ndarray:
        name = path_name(path)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        noise = rng.standard_normal(leaf.shape, np.float32)
        last, size = name.rsplit("/", 1)[-1], BRANCH if _ends_branch(name, names) else 1.0
        if last in ("kernel", "weight_v", "centroids"):
            return noise * np.float32(size) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1)).astype(np.float32)
        around = np.abs(noise) if last == "var" else noise
        return np.float32(size * FILLS.get(last, 0.0)) + np.float32(SPREAD) * around

    return jax.tree_util.tree_map_with_path(one, like)


def _ends_branch(name: str, names: Collection[str]) -> bool:
    """Whether it sizes what a branch of OSNet, a deep ResNet or RepViT adds to its shortcut.

    At 1 every block adds as much as it is given, and a millionth on the pixels is a ten-thousandth of the features.
    """
    if _BRANCH_ENDS.search(name):
        return True
    block = name.removesuffix("IN/scale")  # OSNet-AIN has it in place of a branch's last BatchNorm
    return block != name and f"{block}conv3/conv/kernel" in names and f"{block}conv3/bn/scale" not in names


def cases(names: Sequence[str]) -> dict[str, Callable[[Mesh, str], Numbers]]:
    """Case -> f(mesh, dtype) -> its numbers, which each case compiles and computes anew."""
    found: dict[str, Callable[[Mesh, str], Numbers]] = {"head": _head, "loss": _loss, "views": _views}
    found |= {f"step {kind}": partial(_step, kind) for kind in TASK_SETTINGS}
    return found | {f"backbone {n}": partial(_backbone, n) for n in names}


def mesh_of(devices: Sequence[Any]) -> Mesh:
    """All devices along `data`."""
    return sharding.make_mesh(MeshConfig(), devices)


def _flat(tree: Any) -> Numbers:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {path_name(path): np.asarray(wide(leaf)) for path, leaf in leaves}


def _put(tree: Any, mesh: Mesh, spec: P) -> Any:
    return jax.device_put(tree, NamedSharding(mesh, spec))


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _backbone(name: str, mesh: Mesh, dtype: str) -> Numbers:
    """Features in evaluation and in training, a loss of them, its gradients, and running statistics afterwards."""
    module = models.abstract(name, dtype=jnp.dtype(dtype))
    graphdef, params, stats = models.split(module)
    aims = _noise(BATCH_SIZE, module.features, seed=1)

    def objective(params: Any, x: jax.Array, stats: Any, aims: jax.Array) -> Any:
        network = models.merge(graphdef, params, stats)
        features = wide(network(x, train=True, key=jax.random.key(0)))
        return jnp.square(features - aims).mean(), (features, models.split(network)[2])

    @jax.jit
    def numbers(params: Any, stats: Any, x: jax.Array, aims: jax.Array) -> Any:
        (loss, (features, after)), gradients = jax.value_and_grad(objective, (0, 1), has_aux=True)(
            params, x, stats, aims
        )
        evaluated = wide(models.merge(graphdef, params, stats)(x))
        gradient = {"parameters": gradients[0], "images": gradients[1]}
        return {"features": {"evaluated": evaluated, "trained": features, "statistics": after}, "loss": loss} | {
            "gradient": gradient
        }

    whole = _put((draw(params), draw(stats)), mesh, P())
    return _flat(numbers(*whole, *_put((_noise(BATCH_SIZE, HEIGHT, WIDTH, 3), aims), mesh, BATCH)))


def _head(mesh: Mesh, dtype: str) -> Numbers:
    """The distillation head's embeddings, logits and gradients."""
    kw: dict[str, Any] = {"hidden": 256, "bottleneck": 64, "dtype": jnp.dtype(dtype)}
    graphdef, abstract, _ = models.split(nnx.eval_shape(lambda: Head(128, PROTOTYPES, **kw, rngs=nnx.Rngs(0))))

    def objective(params: Any, x: jax.Array, aims: jax.Array) -> Any:
        logits = models.merge(graphdef, params, {})(x)
        return jnp.square(logits - aims).mean(), logits

    numbers = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))
    inputs = _put((_noise(BATCH_SIZE, 128), _noise(BATCH_SIZE, PROTOTYPES, seed=1)), mesh, BATCH)
    (loss, logits), (of_params, of_x) = numbers(_put(draw(abstract), mesh, P()), *inputs)
    return _flat({"features": logits, "loss": loss, "gradient": {"parameters": of_params, "x": of_x}})


def _loss(mesh: Mesh, dtype: str) -> Numbers:
    """The identity-guided loss, streamed, with respect to embeddings and prototypes."""
    config = LossConfig(chunk=PROTOTYPES // 2)

    def objective(x_BVF: jax.Array, kernel_FP: jax.Array, y_BUF: jax.Array, center_P: jax.Array) -> Any:
        of = partial(product, dtype=jnp.dtype(dtype))
        student, teacher = (Logits.against(x, kernel_FP, of, config.chunk) for x in (x_BVF, y_BUF))
        targets, after = make_targets(teacher, center_P, config)
        loss, measured = student_loss(student, teacher, targets, K, config)
        return loss, measured | {"center": after}

    x, y = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (_noise(8, 4, 32), _noise(8, 2, 32, seed=1)))
    kernel, center = _noise(32, PROTOTYPES, seed=2), _noise(PROTOTYPES, seed=3) * np.float32(0.1)
    numbers = jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))
    (x, y), (kernel, center) = _put((x, y), mesh, BATCH), _put((kernel / 6, center), mesh, P())
    (loss, measured), (of_x, of_kernel) = numbers(x, kernel, y, center)
    return _flat({"loss": loss, "features": measured, "gradient": {"x": of_x, "prototypes": of_kernel}})


def _views(mesh: Mesh, dtype: str) -> Numbers:
    """Views are float32 whatever the network's type."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, 64, 32, 3), np.uint8)
    inputs = _put((images, np.full((BATCH_SIZE, 2), (64, 32), np.int32)), mesh, BATCH)
    made = jax.jit(make_views, static_argnames="config")(jax.random.key(0), *inputs, config=ViewsConfig())
    return _flat({"features": dict(zip(("global", "local"), made, strict=True))})


def _step(kind: str, mesh: Mesh, dtype: str, name: str = "resnet18_ibn") -> Numbers:
    """The state and the measurements after one step of the real trainer."""
    task_class = TASKS[kind]
    settings = typed_config.thaw(task_class.schema())
    changes = {"model.name": name, "model.dtype": dtype, "data.path": "none", "data.batch_size": BATCH_SIZE}
    changes |= {"data.canvas": (HEIGHT, WIDTH), "train.epochs": 2, **TASK_SETTINGS[kind]}
    if kind != "distill":
        changes |= {"image.height": HEIGHT, "image.width": WIDTH}
    settings.update_from_flattened_dict(changes)
    task = task_class(typed_config.freeze(task_class.schema, settings))
    trainer = make_trainer(task, mesh, (10, 10))
    state = _as_if_begun(jax.eval_shape(lambda: init_state(task)))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (BATCH_SIZE, HEIGHT, WIDTH, 3), np.uint8),
        "size": np.full((BATCH_SIZE, 2), (HEIGHT, WIDTH), np.int32),
        "identity": np.arange(BATCH_SIZE, dtype=np.int32) // K,
    }
    placed = jax.tree.map(jax.device_put, state, trainer.shardings)
    after, measured = trainer.step(placed, sharding.put_batch(batch, mesh, task.fields), task.heaviest()[0])
    kept = {"trained": after.trained, "kept": after.kept, "moments": after.opt_state}
    return _flat({"loss": measured, "gradient": kept})


def _as_if_begun(like: Any) -> Any:
    """A state in the middle of a run: moments of the optimizer are zero, the memory is in use."""
    state = draw(like)
    flat = traverse_util.flatten_dict(state.trained["stats"], sep="/")
    if "memory/count" in flat:
        flat["memory/count"] = np.int32(len(flat["memory/centroids"]))
    trained = state.trained | {"stats": traverse_util.unflatten_dict(flat, sep="/")}
    zeros = jax.tree.map(np.zeros_like, state.opt_state)
    return dataclasses.replace(state, trained=trained, opt_state=zeros)

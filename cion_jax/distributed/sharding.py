"""Mesh and sharding rules: which axis of which array lies across which devices.

Axes: `data` and `fsdp` split the batch, `fsdp` also splits parameters, optimizer state and teacher, `model` splits
what a task has so many of that they do not fit on one device, such as prototypes and the logits over them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax.common.bounds import between
from cion_jax.common.paths import path_name
from cion_jax.common.typed_config import ConfigError

BATCH = P(("data", "fsdp"))


Devices = Annotated[int, between(-1, 2**20)]


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 takes what is left."""

    data: Devices = -1
    fsdp: Devices = 1
    model: Devices = 1

    def __post_init__(self) -> None:
        """Raises ValueError where an axis has no device, or more than one axis takes what is left."""
        sizes = (self.data, self.fsdp, self.model)
        if 0 in sizes or sizes.count(-1) > 1:
            raise ValueError(
                f"data, fsdp and model are numbers of devices, at least 1, one of them may be -1; got data={self.data} "
                f"fsdp={self.fsdp} model={self.model}"
            )


@dataclass(frozen=True)
class Rule:
    """How an array of the training state lies on the mesh.

    Attributes:
      pattern: regular expression; the rule is for arrays whose path ends with it.
      axes: mesh axes (or None) of the array's last axes.
      whole: where a mesh axis does not divide the array's axis, whether it lies whole on every device; else that is an
        error, but for arrays smaller than SMALL along `fsdp`.
    """

    pattern: str
    axes: tuple[str | None, ...] = ()
    whole: bool = False


# Of every task; ordered: the first rule whose pattern ends the path decides. A task's own come before.
RULES = (
    Rule("kernel", ("fsdp",)),
    Rule("(scale|bias|mean|var|cls_token|pos_embed|step|count)"),
    Rule("(gamma|gamma_xca|layer_scale|layer_scale_1|layer_scale_2|temperature)"),
    Rule("relative_position_bias_table"),
)

# A parameter of fewer numbers (1 MiB) that `fsdp` does not divide lies whole on every device: widths such as 100 or 486
# belong to small kernels. A larger one that does not divide would defeat the purpose, and raises.
SMALL = 2**18


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh with axes data, fsdp, model over all devices; slices of a pod are put along data, or else along fsdp.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices, or slices cannot be put along an axis.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.model]
    if -1 in sizes:
        rest = math.prod(s for s in sizes if s != -1)
        sizes[sizes.index(-1)] = len(devices) // rest
    if math.prod(sizes) != len(devices):
        raise ConfigError(
            f"config.mesh data={config.data} fsdp={config.fsdp} model={config.model} does not fit "
            f"{len(devices)} devices; their product must be {len(devices)} (one of them may be -1)"
        )
    return Mesh(arrange(devices, sizes), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)


def arrange(devices: Sequence[Any], sizes: Sequence[int]) -> np.ndarray:
    """Devices as an array of `sizes` (data, fsdp, model): neighbors on the fast network within a slice, slices on the
    slow one along the outermost axis that their number divides; the model axis never leaves a slice."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    axis = next((axis for axis in (0, 1) if sizes[axis] % slices == 0), None)
    if axis is None:
        raise ConfigError(
            f"{slices} slices lie along config.mesh.data or config.mesh.fsdp, got data={sizes[0]} and "
            f"fsdp={sizes[1]}; one of them must be a multiple of {slices}"
        )
    between = [slices if i == axis else 1 for i in range(3)]
    within = [size // other for size, other in zip(sizes, between, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)


def describe(state: Any, mesh: Mesh, rules: Sequence[Rule] = ()) -> str:
    """One line for every array of a (possibly abstract) state: path, shape, how it is split, bytes on a device."""
    lines, total = [], 0
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, leaf), where in zip(leaves, jax.tree.leaves(state_shardings(state, mesh, rules)), strict=True):
        size = math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        total += size
        axes = " ".join(str(axis) for axis in where.spec) or "-"
        lines.append(f"{path_name(path)}  {'x'.join(map(str, leaf.shape)) or '1'}  {axes}  {size}")
    return "\n".join([*lines, f"total  {total}"])


def spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules: Sequence[Rule] = ()) -> P:
    """Partition of one array of the training state.

    Args:
      path: its name in the state.
      shape: of the array.
      mesh: of the run.
      rules: of the task, before RULES.

    Raises:
      ConfigError: no rule covers the path, or the rule's mesh axis does not divide the array's axis and the rule does
        not say what then.
    """
    rule = next((rule for rule in (*rules, *RULES) if re.search(rf"(^|/){rule.pattern}$", path)), None)
    if rule is None:
        raise ConfigError(f"no sharding rule covers {path} {shape}; add one to the rules of the task")
    axes = (None,) * (len(shape) - len(rule.axes)) + rule.axes
    for size, axis in zip(shape, axes, strict=True):
        if axis and size % mesh.shape[axis]:
            if rule.whole or (axis == "fsdp" and math.prod(shape) < SMALL):
                return P(*(None,) * len(shape))
            raise ConfigError(
                f"{path} {shape} cannot be split into {mesh.shape[axis]} along {axis}; choose a config.mesh.{axis} "
                f"that divides {size}"
            )
    return P(*axes)


def state_shardings(state: Any, mesh: Mesh, rules: Sequence[Rule] = ()) -> Any:
    """NamedSharding for every array of a (possibly abstract) training state."""

    def one(path: tuple, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec(path_name(path), leaf.shape, mesh, rules))

    return jax.tree_util.tree_map_with_path(one, state)


def check_batch(batch_size: int, ks: Iterable[int], accumulate: int, mesh: Mesh) -> None:
    """Raises ConfigError where an identity group would straddle devices or parts of a batch."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
    for k in sorted(set(ks)):
        if batch_size % (shares * k):
            raise ConfigError(
                f"{batch_size} images cannot be dealt out as whole groups of K = {k} to {shares} shares (data "
                f"{mesh.shape['data']} x fsdp {mesh.shape['fsdp']} x accumulate {accumulate}); choose a "
                f"config.data.batch_size that is a multiple of {shares * math.lcm(*ks)}, or fewer shares"
            )


def gather(params: Any, mesh: Mesh, rules: Sequence[Rule] = ()) -> Any:
    """Parameters as a forward pass needs them: whole on every device, but for what `model` splits. Said explicitly, or
    the compiler might as well move the images."""

    def whole(path: tuple, leaf: jax.Array) -> jax.Array:
        axes = spec(path_name(path), leaf.shape, mesh, rules)
        kept = P(*(axis if axis == "model" else None for axis in axes))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, kept))

    return jax.tree_util.tree_map_with_path(whole, params)


def split_batch(batch: Any, count: int, mesh: Mesh) -> Any:
    """[B, ...] -> [count, B / count, ...]: every device deals out the images that it has, in their order."""
    if count == 1:
        return jax.tree.map(lambda x: x[None], batch)
    devices = mesh.shape["data"] * mesh.shape["fsdp"]

    def split(x: jax.Array) -> jax.Array:
        parts = jnp.moveaxis(x.reshape(devices, count, -1, *x.shape[1:]), 1, 0)
        where = NamedSharding(mesh, P(None, *BATCH))
        return jax.lax.with_sharding_constraint(parts.reshape(count, -1, *x.shape[1:]), where)

    return jax.tree.map(split, batch)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, fields: Sequence[str]) -> dict[str, jax.Array]:
    """This process's part of a batch, the fields that a step reads, as arrays over the whole mesh."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, batch[name]) for name in fields}


def abstract(state: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a state together with where it is to lie."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)

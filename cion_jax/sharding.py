"""Mesh and sharding rules: which axis of which array lies across which devices.

Axes: `data` and `fsdp` split the batch, `fsdp` also splits parameters, optimiser state and teacher, `model` splits
the prototypes and the logits over them.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax.config import MeshConfig
from cion_jax.typed import ConfigError

BATCH = P(("data", "fsdp"))
LOGITS = P(("data", "fsdp"), None, "model")

# Ordered: the first rule whose pattern ends the parameter's path decides. Specs are aligned to the last axes.
RULES: tuple[tuple[str, tuple], ...] = (
    (r"last_layer/weight_v", (None, "model")),
    (r"last_layer/weight_g", ("model",)),
    (r"centre", ("model",)),
    (r"kernel", ("fsdp",)),
    (r"(scale|bias|mean|var|cls_token|pos_embed|step|count)", ()),
    (r"(gamma|gamma_xca|layer_scale|layer_scale_1|layer_scale_2|temperature)", ()),
    (r"relative_position_bias_table", ()),
)

# A parameter of fewer numbers (1 MiB) that `fsdp` does not divide lies whole on every device: widths such as 100 or 486
# belong to small kernels. A larger one that does not divide would defeat the purpose, and raises.
SMALL = 2**18


def make_mesh(config: MeshConfig, devices=None) -> Mesh:
    """Mesh with axes data, fsdp, model over all devices.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices.
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
    return jax.make_mesh(tuple(sizes), ("data", "fsdp", "model"), (AxisType.Auto,) * 3, devices=devices)


def spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """Partition of one array of the training state.

    Raises:
      ConfigError: no rule covers the path, or the rule's mesh axis does not divide the array's axis; but an array of
        fewer than SMALL numbers that `fsdp` does not divide is replicated.
    """
    last = next((axes for pattern, axes in RULES if re.search(rf"(^|/){pattern}$", path)), None)
    if last is None:
        raise ConfigError(f"no sharding rule covers {path} {shape}; add one to cion_jax/sharding.py RULES")
    axes = (None,) * (len(shape) - len(last)) + last
    for size, axis in zip(shape, axes, strict=True):
        if axis and size % mesh.shape[axis]:
            if axis == "fsdp" and math.prod(shape) < SMALL:
                return P(*(None,) * len(shape))
            raise ConfigError(
                f"{path} {shape} cannot be split into {mesh.shape[axis]} along {axis}; choose a config.mesh.{axis} "
                f"that divides {size}"
            )
    return P(*axes)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """NamedSharding for every array of a (possibly abstract) training state."""

    def one(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, state)


def put_batch(batch: dict, mesh: Mesh) -> dict:
    """This process's part of a batch, the fields that a step reads, as arrays over the whole mesh."""
    sharding = NamedSharding(mesh, BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, batch[name]) for name in ("image", "size")}


def abstract(state: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a state together with where it is to lie."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)

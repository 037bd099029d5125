"""Backbones by name. Every family file registers its own in `BACKBONES`; a new family touches no other file.

A backbone is a `functools.partial` of a module's class, called as `build(dtype=, remat=, rngs=)`, and with `drop_path=`
where the constructor takes one. Other packages add theirs by entry points of the group `cion_jax.backbones`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.common.registry import Registry
from cion_jax.common.typed_config import ConfigError
from cion_jax.models.options import check

BACKBONES: Registry[functools.partial[Any]] = Registry("backbone", "cion_jax.models", "backbones")
# What fine-tuning puts behind a backbone, as far as it is part of the features: f(name of the backbone, dtype=, remat=,
# rngs=) -> module like a backbone. `NAME+NECK` names a backbone with it.
NECKS: Registry[Any] = Registry("neck", "cion_jax.models", "necks")
NECKS.register_lazily("bnneck", "cion_jax.tasks.supervised.necks:Necked")
NECKS.register_lazily("mgn", "cion_jax.tasks.supervised.necks:Granular")
NECKS.register_lazily("gem", "cion_jax.tasks.cluster.network:Gem")
NECKS.register_lazily("unit", "cion_jax.tasks.cluster.network:Unit")


def names() -> list[str]:
    """The names of all backbones, sorted."""
    return BACKBONES.names()


def create(
    name: str,
    *,
    dtype: Any = jnp.float32,
    drop_path: float | None = None,
    remat: bool = False,
    options: Sequence[str] = (),
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Builds a backbone with random weights.

    Args:
      name: one of `names()`, or one with a neck of `NECKS` behind it: `resnet50+bnneck`.
      dtype: of the arithmetic; parameters are float32.
      drop_path: highest rate of stochastic depth, in [0, 1); None is the family's own.
      remat: recompute each block in the backward pass, for less memory.
      options: names of `models.options.OPTIONS`.
      rngs: the stream `params` is drawn from.

    Returns:
      A module with `features: int` and `__call__(x_BHWC, *, train=False, key=None) -> [B, features]`. In
      training BatchNorm updates its statistics in place; `key` feeds stochastic depth.

    Raises:
      ConfigError: an unknown name, or a `drop_path` or options that the backbone cannot have.
    """
    name, _, neck = name.partition("+")
    build = BACKBONES[name]
    if neck:
        return NECKS[neck](name, dtype=dtype, remat=remat, rngs=rngs)
    kw: dict[str, Any] = {} if drop_path is None else {"drop_path": drop_path}
    if drop_path is not None and not 0 <= drop_path < 1:
        raise ConfigError(f"drop_path is a share of images in [0, 1), got {drop_path}")
    # Of the constructor: the signature of a module's class is (*args, **kwargs).
    takes = inspect.signature(build.func.__init__).parameters
    if "drop_path" not in takes and kw.pop("drop_path", 0):
        raise ConfigError(f"{name} has no stochastic depth, got drop_path={drop_path}; leave it out")
    if options:
        kw["options"] = check(options)
        if "options" not in takes:
            raise ConfigError(f"{name} has no options, got {', '.join(options)}; leave them out")
    return build(dtype=dtype, remat=remat, rngs=rngs, **kw)


def abstract(name: str, *, dtype: Any = jnp.float32) -> Any:
    """A backbone whose arrays are shapes and dtypes: what `split` needs, within a second and without memory."""
    return nnx.eval_shape(lambda: create(name, dtype=dtype, rngs=_OneKey()))


def split(module: nnx.Module) -> tuple[nnx.GraphDef, dict, dict]:
    """Module -> (graphdef, params, stats); both trees are nested dicts of arrays, keyed by attribute name."""
    graphdef, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, states)
    return graphdef, params, stats


def merge(graphdef: nnx.GraphDef, params: dict, stats: dict) -> Any:
    """The inverse of `split`, also within `jax.jit`."""
    return nnx.merge(graphdef, params, stats)


class _OneKey(nnx.Rngs):
    """The same key for all: flax's own counter of keys takes time quadratic in their number where it is traced."""

    def __init__(self) -> None:
        pass

    def params(self) -> jax.Array:
        return jax.random.key(0)

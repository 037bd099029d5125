"""What stands behind a backbone that learns from clusters: pooling, BatchNorm, unit length.

One network trains, makes the features that are clustered, and is served. Attributes bear the names of the released
code (`gap`, `feat_bn`).

Shapes: B images, D features.
"""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array

from cion_jax.common.typed_config import ConfigError
from cion_jax.models import registry
from cion_jax.models.layers import l2_normalize, wide
from cion_jax.tasks.supervised.necks import GeneralizedMean, NeckNorm

Pool = Literal["gem", "own"]
NECK: dict[Pool, str] = {"gem": "gem", "own": "unit"}  # names in `registry.NECKS`


class Unit(nnx.Module):
    """Backbone, BatchNorm whose bias stays 0, features of unit length. `registry.create("NAME+unit")`.

    Args:
      name: a backbone of `cion_jax.models`.
      drop_path, remat: of the backbone.
    """

    def __init__(
        self,
        name: str,
        *,
        dtype: Any = jnp.float32,
        drop_path: float | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        backbone: Any = registry.create(name, dtype=dtype, drop_path=drop_path, remat=remat, rngs=rngs)
        self.backbone, self.features = backbone, backbone.features
        self.feat_bn = NeckNorm(self.features, dtype=jnp.promote_types(dtype, jnp.float32), rngs=rngs)

    def pooled(self, x_BHWC: Array, *, train: bool, key: Array | None) -> Array:
        """[B, H, W, 3] normalized images -> [B, D], float32 or wider."""
        return wide(self.backbone(x_BHWC, train=train, key=key))

    def __call__(self, x_BHWC: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """[B, H, W, 3] normalized images -> [B, D] of unit length."""
        return l2_normalize(self.feat_bn(self.pooled(x_BHWC, train=train, key=key), train=train))


class Gem(Unit):
    """The same with generalized-mean pooling in place of the backbone's own. `registry.create("NAME+gem")`."""

    def __init__(self, name: str, **kw: Any):
        super().__init__(name, **kw)
        if not hasattr(self.backbone, "maps"):
            raise ConfigError(
                f"generalized-mean pooling takes the maps of a ResNet, got the backbone {name}; choose resnet50_ibn or "
                "its like, or give config.model.pool=own"
            )
        self.gap = GeneralizedMean()

    def pooled(self, x_BHWC: Array, *, train: bool, key: Array | None) -> Array:
        """[B, H, W, 3] normalized images -> [B, D], float32 or wider; `key` is unused, a ResNet has no randomness."""
        del key
        return self.gap(self.backbone.maps(x_BHWC, train=train))


NETWORKS: dict[Pool, type[Unit]] = {"gem": Gem, "own": Unit}

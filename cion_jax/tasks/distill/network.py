"""Backbone and distillation head as one network over views of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models import registry
from cion_jax.models.layers import l2_normalize
from cion_jax.tasks.distill.head import Head


class Network(nnx.Module):
    """Views -> embeddings and prototypes. Student and teacher are two sets of parameters of one such network."""

    def __init__(
        self,
        name: str,
        *,
        prototypes: int,
        hidden: int,
        bottleneck: int,
        dtype: Any,
        drop_path: float | None = None,
        remat: bool = False,
        options: Sequence[str] = (),
        rngs: nnx.Rngs,
    ):
        backbone: Any = registry.create(name, dtype=dtype, drop_path=drop_path, remat=remat, options=options, rngs=rngs)
        self.backbone = backbone
        self.head = Head(backbone.features, prototypes, hidden=hidden, bottleneck=bottleneck, dtype=dtype, rngs=rngs)

    def __call__(self, views: Sequence[jax.Array], *, train: bool = False, key: jax.Array | None = None) -> Any:
        """What the logits of all views are products of (`head.product`); they themselves need not exist at once.

        Args:
          views: per size one array [B, V_i, H_i, W_i, 3]. Each size passes through the backbone on its own, so
            BatchNorm takes its statistics per size, over the whole batch.
          train: batch statistics and stochastic depth.
          key: randomness of stochastic depth.

        Returns:
          Embeddings [B, sum V_i, F] of length 1 and prototypes [F, P], fp32.
        """
        images = [x_BVHWC.reshape(-1, *x_BVHWC.shape[2:]) for x_BVHWC in views]
        keys = [None if key is None else jax.random.fold_in(key, i) for i in range(len(images))]
        found = [self.backbone(x, train=train, key=own) for x, own in zip(images, keys, strict=True)]
        features = [f.reshape(*x_BVHWC.shape[:2], -1) for f, x_BVHWC in zip(found, views, strict=True)]
        return l2_normalize(self.head.embed(jnp.concatenate(features, 1))), self.head.last_layer.kernel()

"""The projection head of the self-distillation: MLP, L2 norm, weight-normalized prototypes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cion_jax.models.activations import gelu
from cion_jax.models.layers import Layers, Linear, l2_normalize
from cion_jax.models.ops import on_rows


class Head(nnx.Module):
    """Features -> logits over the prototypes.

    Args:
      in_features: width of the backbone's features.
      prototypes: P, width of the logits.
      hidden: width of the MLP's two hidden layers.
      bottleneck: width of the normalized embedding.
    """

    def __init__(
        self,
        in_features: int,
        prototypes: int,
        hidden: int = 2048,
        bottleneck: int = 256,
        *,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kw = {"dtype": dtype, "rngs": rngs}
        widths = [
            Linear(in_features, hidden, **kw),
            Linear(hidden, hidden, **kw),
            Linear(hidden, bottleneck, **kw),
        ]
        self.mlp = Layers(dict(zip((0, 2, 4), widths, strict=True)))
        self.last_layer = Prototypes(bottleneck, prototypes, **kw)

    def __call__(self, x_BF: jax.Array) -> jax.Array:
        """[B, in_features] -> [B, prototypes] logits, float32 or wider whatever `dtype` is."""
        return product(l2_normalize(self.embed(x_BF)), self.last_layer.kernel(), self.last_layer.dtype)

    @jax.named_scope("head")
    def embed(self, x_BF: jax.Array) -> jax.Array:
        """[..., in_features] -> [..., bottleneck], before the L2 norm."""
        first, second, third = self.mlp
        return third(gelu(second(gelu(first(x_BF)))))


class Prototypes(nnx.Module):
    """Linear layer without bias whose columns are `weight_v`'s directions at length `weight_g`.

    `weight_v` is [bottleneck, prototypes], `weight_g` [1, prototypes]. With both sharded over the last axis
    nothing but the embedding crosses devices. `weight_g` starts at 1, where the optimizer leaves it.
    """

    def __init__(self, bottleneck: int, prototypes: int, *, dtype: Any, rngs: nnx.Rngs):
        uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.weight_v = nnx.Param(uniform(rngs.params(), (bottleneck, prototypes), jnp.float32))
        self.weight_g = nnx.Param(jnp.ones((1, prototypes), jnp.float32))
        self.dtype = dtype

    @jax.named_scope("head")
    def kernel(self) -> jax.Array:
        """[bottleneck, prototypes], float32 or wider."""
        v_FP = self.weight_v[...]
        return v_FP * (self.weight_g[...] / jnp.linalg.norm(v_FP, axis=0, keepdims=True))


def product(x_BF: jax.Array, kernel_FP: jax.Array, dtype: Any) -> jax.Array:
    """Logits [..., P] of embeddings [..., F]: products in `dtype`, sums in float32 or wider."""
    sums = jnp.promote_types(dtype, jnp.float32)
    kernel_FP = kernel_FP.astype(dtype)
    return on_rows(lambda x: jnp.matmul(x, kernel_FP, preferred_element_type=sums), x_BF.astype(dtype))

"""Multi-head self-attention of tokens that lie as images [B, N, C] or as rows of one matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cion_jax.models import ops
from cion_jax.models.layers import Linear


class Part(NamedTuple):
    """Tokens of images as the rows of a matrix.

    Attributes:
      images: how many.
      tokens: rows of an image, one below the other.
      length: how many of these are tokens; the others fill up.
      apart: whether the images' class tokens lie before all of them, a row an image, and not among them.
    """

    images: int
    tokens: int
    length: int
    apart: bool = False

    @property
    def rows(self) -> int:
        """Of the matrix."""
        return self.images * (self.tokens + self.apart)

    def of(self, x_RC: jax.Array) -> jax.Array:
        """[images, tokens, C], class tokens that lie apart not among them."""
        rest = x_RC[self.images :] if self.apart else x_RC
        return rest.reshape(self.images, self.tokens, x_RC.shape[-1])

    def first(self, x_RC: jax.Array) -> jax.Array:
        """[images, C], the class tokens."""
        return x_RC[: self.images] if self.apart else self.of(x_RC)[:, 0]


class Attention(nnx.Module):
    """Multi-head self-attention."""

    def __init__(
        self,
        features: int,
        heads: int,
        qkv_bias: bool = True,
        linear: type[Linear] = Linear,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.heads = heads
        self.qkv = linear(features, 3 * features, qkv_bias, dtype=dtype, rngs=rngs)
        self.proj = linear(features, features, dtype=dtype, rngs=rngs)

    @jax.named_scope("attention")
    def __call__(self, x: jax.Array, part: Part | None = None) -> jax.Array:
        """[B, N, C] -> [B, N, C]; or the rows of `part`, [R, C], to the same."""
        *shape, C = x.shape
        mixing = self._mixing(part or Part(shape[0], shape[1], shape[1]))
        return self.proj(mixing(self.qkv(x).reshape(-1, 3 * C)).reshape(*shape, C))

    def _mixing(self, part: Part) -> Callable[[jax.Array], jax.Array]:
        """`_mixed` of `part`. Where class tokens lie apart the backward pass makes the weights again: a tile's worth of
        work, instead of writing and reading [B, H, N, N] numbers in float32."""
        function = partial(self._mixed, part=part)
        return jax.checkpoint(function) if part.apart else function

    def _mixed(self, qkv_RM: jax.Array, part: Part) -> jax.Array:
        """[R, 3 C] -> [R, C]."""
        q_BNHD, k_BNHD, v_BNHD = self._heads(part.of(qkv_RM))
        if not part.apart:
            return _attend(q_BNHD, k_BNHD, v_BNHD, part.length).reshape(part.rows, -1)
        first = self._heads(part.first(qkv_RM)[:, None])
        apart = attend_apart(first, (q_BNHD, k_BNHD, v_BNHD))
        return jnp.concatenate([y.reshape(-1, self.proj.in_features) for y in apart])

    def _heads(self, qkv_BNM: jax.Array) -> Sequence[jax.Array]:
        """[B, N, 3 C] -> three of [B, N, H, D]."""
        B, N, _ = qkv_BNM.shape
        return tuple(jnp.moveaxis(qkv_BNM.reshape(B, N, 3, self.heads, -1), 2, 0))


def attend_apart(first: Sequence[jax.Array], rest: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Dot-product attention of class tokens and patches that lie apart: a softmax over both is the two softmaxes, each
    by its share of the sum of exponentials. So the patches' products have the sizes of tiles, 128 and 32.

    Args:
      first: queries, keys and values of the class tokens, [B, 1, H, D].
      rest: of the patches, [B, N, H, D].

    Returns:
      What they attend to, [B, 1, H, D] and [B, N, H, D].
    """
    (q1, k1, v1), (q, k, v) = first, rest
    scale = q.shape[-1] ** -0.5

    def attended(queries: jax.Array) -> jax.Array:
        logits_BHQK = scale * ops.wide(jnp.einsum("bqhd,bkhd->bhqk", queries, k, preferred_element_type=jnp.float32))
        own_BHQ1 = scale * ops.wide(jnp.einsum("bqhd,bkhd->bhqk", queries, k1, preferred_element_type=jnp.float32))
        highest = jnp.maximum(logits_BHQK.max(-1, keepdims=True), own_BHQ1)
        highest = jax.lax.stop_gradient(highest)
        weights_BHQK, own_BHQ1 = jnp.exp(logits_BHQK - highest), jnp.exp(own_BHQ1 - highest)
        whole = weights_BHQK.sum(-1, keepdims=True) + own_BHQ1
        mixed_BQHD = jnp.einsum("bhqk,bkhd->bqhd", (weights_BHQK / whole).astype(v.dtype), v)
        return mixed_BQHD + (own_BHQ1 / whole).astype(v.dtype).swapaxes(1, 2) * v1

    return attended(q1), attended(q)


def _attend(q_BNHD: jax.Array, k_BNHD: jax.Array, v_BNHD: jax.Array, length: int) -> jax.Array:
    """Dot-product attention to the first `length` tokens; in half precision on an NVIDIA GPU by cuDNN, which never
    writes the [B, H, N, N] weights."""
    plain = partial(ops.attention, length=length)
    if q_BNHD.dtype not in (jnp.bfloat16, jnp.float16):
        return plain(q_BNHD, k_BNHD, v_BNHD)
    return ops.by_cuda(partial(_attend_by_cudnn, length=length), plain, q_BNHD, k_BNHD, v_BNHD)


def _attend_by_cudnn(q_BNHD: jax.Array, k_BNHD: jax.Array, v_BNHD: jax.Array, length: int) -> jax.Array:
    B, N, _, _ = q_BNHD.shape
    even = [jnp.pad(x, ((0, 0), (0, N % 2), (0, 0), (0, 0))) for x in (q_BNHD, k_BNHD, v_BNHD)]  # JAX takes no odd N
    length_B = jnp.full(B, length, jnp.int32) if N % 2 or length < N else None
    return jax.nn.dot_product_attention(
        *even, query_seq_lengths=length_B, key_value_seq_lengths=length_B, implementation="cudnn"
    )[:, :N]

"""The memory of cluster centroids, and the loss against it (Dai et al., Cluster Contrast, arXiv 2103.11568).

Shapes: B images, D features, C rows of the memory, of which `count` are in use.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.models.layers import l2_normalize, wide

Update = Literal["hardest", "every"]


def logits(x_BD: Array, centroids_CD: Array, count: Array, temperature: float) -> Array:
    """[B, C] similarities of features and centroids by temperature; of rows that are not in use minus infinity.

    Args:
      x_BD: of unit length.
      centroids_CD: of unit length; without gradient.
      count: rows in use, the first ones.
      temperature: tau.
    """
    similarity_BC = jnp.matmul(wide(x_BD), jax.lax.stop_gradient(centroids_CD).T, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(jnp.arange(len(centroids_CD)) < count, similarity_BC / temperature, -jnp.inf)


def contrast(logits_BC: Array, label_B: Array) -> Array:
    """Mean cross entropy with the cluster of every image (InfoNCE, equation 2)."""
    log_BC = jax.nn.log_softmax(logits_BC)
    return -jnp.take_along_axis(log_BC, label_B[:, None], 1).mean()


def updated(centroids_CD: Array, x_BD: Array, label_B: Array, momentum: float, update: Update) -> Array:
    """The memory after a batch: c = momentum c + (1 - momentum) x, brought to unit length.

    Args:
      centroids_CD: before.
      x_BD: features of unit length.
      label_B: int clusters of the batch's images.
      momentum: share of the old centroid that stays.
      update: which images of a cluster change its centroid: the `hardest`, least similar to it, of equals the first
        one; or `every` one, in the order of the batch.
    """

    def mixed(centroid: Array, x: Array) -> Array:
        return l2_normalize(momentum * centroid + (1 - momentum) * x)

    def one_more(i: Array, centroids_CD: Array) -> Array:
        return centroids_CD.at[label_B[i]].set(mixed(centroids_CD[label_B[i]], x_BD[i]))

    label_B = jnp.asarray(label_B)
    x_BD = jax.lax.stop_gradient(wide(x_BD)).astype(centroids_CD.dtype)
    if update == "every":
        return jax.lax.fori_loop(0, len(x_BD), one_more, centroids_CD)
    own_BD = centroids_CD[label_B]
    chosen = jnp.where(hardest((own_BD * x_BD).sum(1), label_B), label_B, len(centroids_CD))
    return centroids_CD.at[chosen].set(mixed(own_BD, x_BD), mode="drop")


def hardest(similarity_B: Array, label_B: Array) -> Array:
    """[B] bool: whether an image is the least similar one of its cluster in the batch; of equals the first."""
    place_B = jnp.arange(len(label_B))
    harder_BB = (similarity_B < similarity_B[:, None]) | (
        (similarity_B == similarity_B[:, None]) & (place_B < place_B[:, None])
    )
    return ~(harder_BB & (label_B == label_B[:, None])).any(1)

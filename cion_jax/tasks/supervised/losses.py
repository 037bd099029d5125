"""Identity and triplet losses on a batch of P identities x K images.

Everything is plain arithmetic on the whole batch, so under `jax.jit` a batch that is sharded over devices counts as the
one batch it is: the triplet loss mines over all its images and its gradient reaches all of them.

Shapes: B images, D features, C classes. Losses are computed in float32 or wider.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.models.layers import l2_normalize, wide

SQUARED_FLOOR = 1e-12  # of a squared distance; below it a distance is constant
_JOINED = (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 5), slice(5, 8))  # parts that share a triplet loss of MGN
Spread = Literal["all", "others"]


def bnneck(
    features_BD: Array, logits_BC: Array, label_B: Array, smoothing: float = 0.0, normalized: bool = False
) -> dict[str, Array]:
    """Terms of TransReID's loss, whose sum is minimized: `identity` and `triplet`."""
    return {
        "identity": cross_entropy(logits_BC, label_B, smoothing),
        "triplet": triplet(features_BD, label_B, normalized=normalized),
    }


def mgn(features_BPD: Array, cosines_BPC: Array, label_B: Array, smoothing: float = 0.1) -> dict[str, Array]:
    """Terms of MGN's loss as FastReID weighs them: the sum of these is minimized.

    FastReID on several processes leaves out the gradient that one process's anchors send to another's images; here all
    images of the batch get the whole gradient, as on one process.

    Args:
      features_BPD: of the heads b1, b2, b3, b21, b22, b31, b32, b33.
      cosines_BPC: of features and class weights.
      label_B: int, 0 .. C-1.
      smoothing: of the labels.

    Returns:
      `identity` [P], an eighth of every head's cross entropy, and `triplet` [5], a fifth of the triplet losses of the
      three whole maps and of the joined features of the two halves and of the three thirds.
    """
    heads = [circle_softmax(cosines_BPC[:, p], label_B) for p in range(cosines_BPC.shape[1])]
    identity = jnp.stack([cross_entropy(logits_BC, label_B, smoothing, "others") for logits_BC in heads])
    joined = [features_BPD[:, parts].reshape(len(label_B), -1) for parts in _JOINED]
    triplets = jnp.stack([triplet(x_BD, label_B) for x_BD in joined])
    return {"identity": identity / len(heads), "triplet": triplets / len(joined)}


def cross_entropy(logits_BC: Array, label_B: Array, smoothing: float = 0.0, spread: Spread = "all") -> Array:
    """Mean cross entropy against smoothed labels.

    Args:
      logits_BC: any float.
      label_B: int, 0 .. C-1.
      smoothing: probability eps that is taken from the label, 0 .. 1.
      spread: who gets it: `all` classes eps / C each, the label too (arXiv 1512.00567; TransReID), or the `others`
        eps / (C - 1) each (FastReID).

    Returns:
      Scalar. The mean leaves out images whose loss is exactly 0, as FastReID's does.
    """
    log_BC = jax.nn.log_softmax(wide(logits_BC))
    label = jnp.take_along_axis(log_BC, label_B[:, None], 1)[:, 0]
    every, classes = log_BC.sum(1), log_BC.shape[1]
    if spread == "all":
        loss_B = -(1 - smoothing) * label - smoothing / classes * every
    else:
        loss_B = -(1 - smoothing) * label - smoothing / max(classes - 1, 1) * (every - label)
    return loss_B.sum() / jnp.maximum((loss_B != 0).sum(), 1)


def circle_softmax(cosine_BC: Array, label_B: Array, scale: float = 64.0, margin: float = 0.35) -> Array:
    """Logits of a classifier under the circle loss (arXiv 2002.10857, equation 8).

    The factors by which a cosine counts the more the further it is from its optimum are constants in the gradient.

    Args:
      cosine_BC: between features and class weights.
      label_B: int, 0 .. C-1.
      scale: gamma.
      margin: m.

    Returns:
      [B, C].
    """
    cosine = wide(cosine_BC)
    factor = jax.lax.stop_gradient(cosine)
    positive = jnp.maximum(1 + margin - factor, 0) * (cosine - (1 - margin))
    negative = jnp.maximum(factor + margin, 0) * (cosine - margin)
    is_label = label_B[:, None] == jnp.arange(cosine.shape[1])
    return scale * jnp.where(is_label, positive, negative)


def triplet(x_BD: Array, label_B: Array, margin: float | None = None, normalized: bool = False) -> Array:
    """Batch-hard triplet loss (arXiv 1703.07737, equations 5 and 6) on euclidean distances.

    Args:
      x_BD: features.
      label_B: int; images of one identity have one label.
      margin: the loss is max(0, d_ap - d_an + margin); None is the soft margin log(1 + exp(d_ap - d_an)).
      normalized: bring features to length 1 first.

    Returns:
      Scalar, the mean over all anchors. An anchor's identity must not be the only one of the batch: there is no
      negative then and the loss is 0.
    """
    positive, negative, *_ = hardest(triplet_features(x_BD, normalized), label_B)
    difference = positive - negative
    return jnp.mean(jax.nn.softplus(difference) if margin is None else jnp.maximum(difference + margin, 0))


def triplet_features(x_BD: Array, normalized: bool) -> Array:
    """What distances are of: features [B, D] as they are, or of length 1."""
    return l2_normalize(x_BD) if normalized else x_BD


def hardest(x_BD: Array, label_B: Array) -> tuple[Array, Array, Array, Array]:
    """Of every image the distances [B] of its furthest positive and its nearest negative, and which [B] these are.

    The image itself counts among its positives. Among equals the first in the batch wins and gets the whole gradient.
    """
    distance_BB = distances(x_BD)
    same_BB = label_B[:, None] == label_B[None]
    furthest = jnp.argmax(jnp.where(same_BB, distance_BB, -jnp.inf), 1)
    nearest = jnp.argmin(jnp.where(same_BB, jnp.inf, distance_BB), 1)
    positive, negative = (jnp.take_along_axis(distance_BB, i[:, None], 1)[:, 0] for i in (furthest, nearest))
    negative = jnp.where(same_BB.all(1), jnp.inf, negative)
    return positive, negative, furthest, nearest


def distances(x_BD: Array) -> Array:
    """Euclidean distances [B, B], at least 1e-6; at that floor without gradient."""
    x = wide(x_BD)
    squares_B = jnp.square(x).sum(1)
    products_BB = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    squared_BB = squares_B[:, None] + squares_B[None] - 2 * products_BB
    return jnp.sqrt(jnp.where(squared_BB > SQUARED_FLOOR, squared_BB, SQUARED_FLOOR))

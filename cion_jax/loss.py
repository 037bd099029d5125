"""Identity-guided self-distillation (arXiv 2409.18569, equations 8 and 9; released variant: spec section 4).

Shape suffixes: B images (whole identity groups of K), G = B / K groups, U = 2 teacher views, V student views, P
prototypes. The cross entropy H(t, s) = -sum_p t_p log s_p is linear in t, so the sum over all pairs of images of one
identity is the product of two sums, and the sum over all pairs of views is one more: no pair is ever formed, and the
cost does not depend on K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

SINKHORN_ROUNDS = 3


@dataclass(frozen=True)
class LossConfig:
    """Settings of the loss.

    Attributes:
      weighting: `paper` averages over all counted (image pair, view pair) terms (eq. 9); `released` is what the
        authors' code computes.
      centring: what keeps the teacher from one answer to everything. `mean`, the paper's, subtracts a moving average
        of its logits. `sinkhorn` makes every batch use all prototypes equally (SwAV, arXiv 2006.09882; DINOv2, arXiv
        2304.07193): for runs too short or batches too small for the average to tell people apart.
      student_temperature, teacher_temperature: softmax temperatures, > 0.
      centre_momentum: EMA momentum of the centre, 0 .. 1; `sinkhorn` has no use for it.
    """

    weighting: Literal["paper", "released"] = "paper"
    centring: Literal["mean", "sinkhorn"] = "mean"
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9


def identity_guided_loss(z_BVP: jax.Array, t_BUP: jax.Array, centre_P: jax.Array, k: int, config: LossConfig):
    """Cross entropy of the student's views against the teacher's, over all images of one identity.

    Args:
      z_BVP: student logits; the first U views are the teacher's views.
      t_BUP: teacher logits; no gradient flows into them.
      centre_P: centre of the teacher's logits, from before this batch.
      k: images of one identity, adjacent in the batch; B is a multiple of it.
      config: weighting, centring and temperatures.

    Returns:
      (loss, measurements): scalar fp32; `teacher_entropy` and `student_entropy` in nats, averaged over the U global
      views (0 .. log P).
    """
    targets = {"mean": _centred, "sinkhorn": _balanced}[config.centring]
    log_t_BUP = targets(jax.lax.stop_gradient(t_BUP.astype(jnp.float32)), centre_P, config.teacher_temperature)
    log_s_BVP = jax.nn.log_softmax(z_BVP.astype(jnp.float32) / config.student_temperature)
    p_BUP = jnp.exp(log_t_BUP)
    loss = {"paper": _paper, "released": _released}[config.weighting](p_BUP, log_s_BVP, k)
    log_g_BUP = jax.lax.stop_gradient(log_s_BVP[:, : t_BUP.shape[1]])
    return loss, {
        "teacher_entropy": -jnp.mean(jnp.sum(p_BUP * log_t_BUP, -1)),
        "student_entropy": -jnp.mean(jnp.sum(jnp.exp(log_g_BUP) * log_g_BUP, -1)),
    }


def _centred(t_BUP, centre_P, temperature):
    """Log probabilities of the logits less the centre."""
    return jax.nn.log_softmax((t_BUP - centre_P) / temperature)


def _balanced(t_BUP, centre_P, temperature):
    """Log probabilities after rounds of Sinkhorn and Knopp: every prototype has the same share of the batch, then every
    view is a distribution again. The last word is the views'."""
    log_t_BUP = t_BUP / temperature
    for _ in range(SINKHORN_ROUNDS):
        log_t_BUP -= jax.nn.logsumexp(log_t_BUP, axis=(0, 1), keepdims=True)
        log_t_BUP = jax.nn.log_softmax(log_t_BUP)
    return log_t_BUP


def _paper(p_BUP, log_s_BVP, k):
    """Mean over ordered image pairs and view pairs, without the identical view of the identical image (eq. 9)."""
    (b, u, _), v = p_BUP.shape, log_s_BVP.shape[1]
    pairs = _dot(_groups(p_BUP, k), _groups(log_s_BVP, k))
    same_view = _dot(p_BUP, log_s_BVP[:, :u])
    return -(pairs - same_view) / (b // k * (u * v * k * k - u * k))


def _released(p_BUP, log_s_BVP, k):
    """Mean over views u != v; the K terms of an image with itself weigh together like one pair of images."""
    (b, u, _), v = p_BUP.shape, log_s_BVP.shape[1]

    def different_views(p, log_s):
        return _dot(p.sum(1), log_s.sum(1)) - _dot(p, log_s[:, :u])

    same_image = different_views(p_BUP, log_s_BVP)
    pairs = different_views(_sums(p_BUP, k), _sums(log_s_BVP, k))
    per_view = same_image / b + (pairs - same_image) / (b // k)
    return -per_view / (k * (k - 1) + 1) / (u * v - u)


def _sums(x_BVP, k):
    """[B, V, P] -> [G, V, P], the sum over the images of each group."""
    return x_BVP.reshape(-1, k, *x_BVP.shape[1:]).sum(1)


def _groups(x_BVP, k):
    """[B, V, P] -> [G, P], the sum over the images and views of each group."""
    return _sums(x_BVP, k).sum(1)


def _dot(a, b):
    return jnp.sum(a * b)


def update_centre(centre_P: jax.Array, t_BUP: jax.Array, config: LossConfig) -> jax.Array:
    """Centre after a batch: EMA of the mean of all its raw teacher logits, fp32."""
    mean_P = t_BUP.astype(jnp.float32).mean((0, 1))
    return config.centre_momentum * centre_P + (1 - config.centre_momentum) * mean_P

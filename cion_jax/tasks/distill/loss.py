"""Identity-guided self-distillation (arXiv 2409.18569, equations 8 and 9), and as the authors' code has it.

Shape suffixes: B images (whole identity groups of K), G = B / K groups, U = 2 teacher views, V student views, P
prototypes, C prototypes of one part, F features of an embedding.

The cross entropy H(t, s) = -sum_p t_p log s_p is linear in t, so the sum over all pairs of images of one identity is
the product of two sums, and the sum over all pairs of views is one more: no pair is ever formed, and the cost does not
depend on K. It is linear in log s = z - log sum exp z, too. So the prototypes can pass by in parts: all that has to
be kept of a part is its share of the sum over p and of the normalizers. Where there are several parts, their logits are
made again for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cion_jax.common.bounds import SHARE, between, positive
from cion_jax.common.errors import UserError


@dataclass(frozen=True)
class LossConfig:
    """Settings of the loss.

    Attributes:
      weighting: `paper` averages over all counted (image pair, view pair) terms (eq. 9); `released` is what the
        authors' code computes.
      centering: what keeps the teacher from one answer to everything. `mean`, the paper's, subtracts a moving average
        of its logits. `sinkhorn` makes every batch use all prototypes equally (SwAV, arXiv 2006.09882; DINOv2, arXiv
        2304.07193): for runs too short or batches too small for the average to tell people apart.
      student_temperature, teacher_temperature: softmax temperatures, > 0.
      center_momentum: EMA momentum of the center, 0 .. 1; `sinkhorn` has no use for it.
      sinkhorn_rounds: how often `sinkhorn` balances prototypes and views in turn.
      chunk: prototypes of one device whose logits exist at the same time, > 0.
      contrast: share of `identity_contrast` in the loss, the rest is the paper's; for runs too short for prototypes.
      contrast_temperature: of its softmax, > 0.
    """

    RENAMED: ClassVar[dict[str, str]] = {"centring": "centering", "centre_momentum": "center_momentum"}

    weighting: Literal["paper", "released"] = "paper"
    centering: Literal["mean", "sinkhorn"] = "mean"
    student_temperature: Annotated[float, positive(1000)] = 0.1
    teacher_temperature: Annotated[float, positive(1000)] = 0.04
    center_momentum: Annotated[float, SHARE] = 0.9
    sinkhorn_rounds: Annotated[int, between(1, 100)] = 3
    chunk: Annotated[int, between(1, 2**24)] = 8192
    contrast: Annotated[float, SHARE] = 0.0
    contrast_temperature: Annotated[float, positive(1000)] = 0.1


class Axes(NamedTuple):
    """Mesh axes that the images and the prototypes are split over, where the loss runs on each device for itself."""

    images: tuple[str, ...] = ()
    prototypes: tuple[str, ...] = ()


ONE_DEVICE = Axes()


class Logits(NamedTuple):
    """Logits [B, V, P] in N parts of C prototypes: part i is `of(parts[i])`, [B, V, C]."""

    of: Callable[[jax.Array], jax.Array]
    parts: jax.Array

    @classmethod
    def whole(cls, z_BVP: jax.Array) -> Logits:
        """Logits that exist already, as one part."""
        return cls(lambda z_BVC: z_BVC, z_BVP[None])

    @classmethod
    def against(cls, x_BVF: jax.Array, kernel_FP: jax.Array, product: Callable, chunk: int) -> Logits:
        """Logits `product(x_BVF, kernel)` of embeddings, in the fewest equal parts of at most `chunk` prototypes."""
        F, P = kernel_FP.shape
        n = chunks(P, chunk)
        parts_NFC = jnp.moveaxis(kernel_FP.reshape(F, n, P // n), 1, 0)
        return cls(lambda kernel_FC: product(x_BVF, kernel_FC), parts_NFC)


def chunks(prototypes: int, chunk: int) -> int:
    """The fewest equal chunks of at most `chunk` prototypes.

    Raises:
      UserError: a number of prototypes without divisors near there, such as a prime, would mean a round a prototype.
    """
    least = -(-prototypes // chunk)
    found = next((n for n in range(least, 4 * least + 1) if prototypes % n == 0), None)
    if found is None:
        raise UserError(
            f"{prototypes} prototypes of a device cannot be cut into {least} to {4 * least} equal chunks of at most "
            f"{chunk}; choose a config.model.prototypes near it that has more divisors, e.g. "
            f"{-(-prototypes // (64 * least)) * 64 * least} a device, or a larger config.loss.chunk"
        )
    return found


class Targets(NamedTuple):
    """What the student is to say: log p = t / temperature - shift - norm, for teacher logits t [B, U, P].

    Attributes:
      shift_P: by prototype; what keeps the teacher from one answer to everything.
      norm_BU: by view; makes p a distribution.
    """

    shift_P: jax.Array
    norm_BU: jax.Array


def make_targets(
    teacher: Logits, center_P: jax.Array, config: LossConfig, axes: Axes = ONE_DEVICE
) -> tuple[Targets, jax.Array]:
    """Targets of a batch, and the center after it.

    Args:
      teacher: logits; no gradient flows into them.
      center_P: center of the teacher's logits, from before this batch, fp32.
      config: centering and temperature.
      axes: of the mesh.

    Returns:
      (Targets, center after the batch: EMA of the mean of all its raw teacher logits).
    """
    n = len(teacher.parts)

    def balance(norm_BU: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def part(operands: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
            parameters, center_C = operands
            t_BUC = teacher.of(parameters).astype(jnp.float32)
            scaled_BUC = t_BUC / config.teacher_temperature
            if config.centering == "mean":
                shift_C = center_C / config.teacher_temperature
            else:
                shift_C = _log_sum_exp(scaled_BUC - norm_BU[..., None], (0, 1), axes.images)
            return shift_C, jax.nn.logsumexp(scaled_BUC - shift_C, -1), t_BUC.mean((0, 1))

        shift_NC, norm_NBU, mean_NC = _each(part, (teacher.parts, center_P.reshape(n, -1)))
        return shift_NC.reshape(-1), _log_sum_exp(norm_NBU, 0, axes.prototypes), mean_NC.reshape(-1)

    norm_BU = jnp.float32(0)[None, None]
    # Sinkhorn and Knopp: every prototype gets the same share of the batch, then every view is a distribution again.
    for _ in range(1 if config.centering == "mean" else config.sinkhorn_rounds):
        shift_P, norm_BU, mean_P = balance(norm_BU)
    mean_P = lax.pmean(mean_P, axes.images)
    after_P = config.center_momentum * center_P + (1 - config.center_momentum) * mean_P
    return lax.stop_gradient((Targets(shift_P, norm_BU), after_P))


def student_loss(
    student: Logits, teacher: Logits, targets: Targets, k: int, config: LossConfig, axes: Axes = ONE_DEVICE
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross entropy of the student's views against the teacher's, over all images of one identity.

    Args:
      student: logits; the first U views are the teacher's views.
      teacher: the logits that `targets` were made of, in as many parts.
      targets: of the same batch.
      k: images of one identity, adjacent in the batch; B is a multiple of it.
      config: weighting and temperatures.
      axes: of the mesh; a device holds whole identity groups.

    Returns:
      (loss, measurements): scalar fp32; `teacher_entropy` and `student_entropy` in nats, averaged over the U global
      views (0 .. log P).
    """
    cross_entropy = {"paper": _paper, "released": _released}[config.weighting]
    u = targets.norm_BU.shape[1]

    def part(operands: Any) -> tuple[jax.Array, ...]:
        student_part, teacher_part, shift_C = operands
        t_BUC = lax.stop_gradient(teacher.of(teacher_part).astype(jnp.float32))
        log_p_BUC = t_BUC / config.teacher_temperature - shift_C - targets.norm_BU[..., None]
        p_BUC = jnp.exp(log_p_BUC)
        z_BVC = student.of(student_part).astype(jnp.float32) / config.student_temperature
        norm_BV = jax.nn.logsumexp(z_BVC, -1)
        log_own_BUC = lax.stop_gradient(z_BVC[:, :u] - norm_BV[:, :u, None])  # of this part's own softmax
        entropies = (-(jnp.exp(log_BUC) * log_BUC).sum(-1) for log_BUC in (log_p_BUC, log_own_BUC))
        return cross_entropy(p_BUC, z_BVC, k), norm_BV, *entropies

    shift_NC = targets.shift_P.reshape(len(student.parts), -1)
    term_N, norm_NBV, teacher_NBU, own_NBU = _each(part, (student.parts, teacher.parts, shift_NC))
    norm_BV = _log_sum_exp(norm_NBV, 0, axes.prototypes)
    ones_BU = jnp.ones_like(targets.norm_BU)
    loss = lax.psum(term_N.sum(), axes.prototypes) - cross_entropy(ones_BU[..., None], norm_BV[..., None], k)
    # A part has the share `weight` of a view's probability: the entropy between parts comes on top of theirs.
    log_weight_NBU = lax.stop_gradient(norm_NBV - norm_BV)[:, :, :u]
    student_NBU = jnp.exp(log_weight_NBU) * (own_NBU - log_weight_NBU)
    student_BU, teacher_BU = lax.psum((student_NBU.sum(0), teacher_NBU.sum(0)), axes.prototypes)
    measured = {"teacher_entropy": teacher_BU.mean(), "student_entropy": student_BU.mean()}
    return lax.pmean((loss, measured), axes.images)


def identity_contrast(x_BVF: jax.Array, image_B: jax.Array, y_NUF: jax.Array, k: int, temperature: float) -> jax.Array:
    """How hard it is to find an identity's views among all of a batch: cross entropy against the teacher's embeddings.

    The supervised contrastive loss (arXiv 2004.11362, L_out) of identity groups, with a teacher's embeddings as keys
    (arXiv 1911.05722). A student's view is not compared with the teacher's embedding of that very view.

    Args:
      x_BVF: the student's embeddings of length 1; the first U views are the teacher's views.
      image_B: their images' places in the whole batch, 0 .. N - 1.
      y_NUF: the teacher's embeddings of length 1 of the whole batch; no gradient flows into them.
      k: images of one identity, adjacent in the whole batch.
      temperature: of the softmax over the N U keys.

    Returns:
      Mean over all views of the student, in nats; scalar fp32.
    """
    N, U, _ = y_NUF.shape
    V = x_BVF.shape[1]
    image_N = jnp.arange(N)
    same_image_BN, same_view_VU = image_B[:, None] == image_N, jnp.arange(V)[:, None] == jnp.arange(U)
    other_BVNU = ~(same_image_BN[:, None, :, None] & same_view_VU[None, :, None, :])
    found_BVNU = other_BVNU & (image_B[:, None] // k == image_N // k)[:, None, :, None]
    x_BVF, y_NUF = x_BVF.astype(jnp.float32), lax.stop_gradient(y_NUF.astype(jnp.float32))
    z_BVNU = jnp.einsum("BVF,NUF->BVNU", x_BVF, y_NUF) / temperature
    norm_BV = jax.nn.logsumexp(z_BVNU, (2, 3), where=other_BVNU)
    return (norm_BV - z_BVNU.mean((2, 3), where=found_BVNU)).mean()


def dimensions(x_BVF: jax.Array) -> jax.Array:
    """In how many directions embeddings differ, 1 .. min(B V - 1, F): (sum of l)^2 / sum of l^2, l the eigenvalues of
    their covariance (the participation ratio). Few of them mean that most people look alike to the network, however
    well balanced its prototypes are. 0 where all embeddings are one.
    """
    x_NF = x_BVF.reshape(-1, x_BVF.shape[-1])
    x_NF = x_NF - x_NF.mean(0)
    covariance_FF = jnp.matmul(x_NF.T, x_NF, precision=lax.Precision.HIGHEST) / len(x_NF)
    squares = jnp.square(covariance_FF).sum()
    return jnp.square(jnp.trace(covariance_FF)) / jnp.maximum(squares, jnp.finfo(squares.dtype).tiny)


def identity_guided_loss(
    z_BVP: jax.Array, t_BUP: jax.Array, center_P: jax.Array, k: int, config: LossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of logits that exist already; arguments and result as in `make_targets` and `student_loss`."""
    student, teacher = Logits.whole(z_BVP), Logits.whole(t_BUP)
    targets, _ = make_targets(teacher, center_P, config)
    return student_loss(student, teacher, targets, k, config)


def _each(function: Callable, operands: Any) -> Any:
    """The results of all parts, stacked; several are made again for the gradient, a single one is kept."""
    if len(jax.tree.leaves(operands)[0]) > 1:
        return lax.map(jax.checkpoint(function), operands)
    return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], operands)))


def _log_sum_exp(x: jax.Array, axis: int | tuple[int, ...], mesh_axes: tuple[str, ...]) -> jax.Array:
    """Over array axes and over mesh axes."""
    local = jax.nn.logsumexp(x, axis)
    if not mesh_axes:
        return local
    highest = lax.pmax(lax.stop_gradient(local), mesh_axes)
    return highest + jnp.log(lax.psum(jnp.exp(local - highest), mesh_axes))


def _paper(p_BUP: jax.Array, log_s_BVP: jax.Array, k: int) -> jax.Array:
    """Mean over ordered image pairs and view pairs, without the identical view of the identical image (eq. 9)."""
    (b, u, _), v = p_BUP.shape, log_s_BVP.shape[1]
    pairs = _dot(_groups(p_BUP, k), _groups(log_s_BVP, k))
    same_view = _dot(p_BUP, log_s_BVP[:, :u])
    return -(pairs - same_view) / (b // k * (u * v * k * k - u * k))


def _released(p_BUP: jax.Array, log_s_BVP: jax.Array, k: int) -> jax.Array:
    """Mean over views u != v; the K terms of an image with itself weigh together like one pair of images."""
    (b, u, _), v = p_BUP.shape, log_s_BVP.shape[1]

    def different_views(p: jax.Array, log_s: jax.Array) -> jax.Array:
        return _dot(p.sum(1), log_s.sum(1)) - _dot(p, log_s[:, :u])

    same_image = different_views(p_BUP, log_s_BVP)
    pairs = different_views(_sums(p_BUP, k), _sums(log_s_BVP, k))
    per_view = same_image / b + (pairs - same_image) / (b // k)
    return -per_view / (k * (k - 1) + 1) / (u * v - u)


def _sums(x_BVP: jax.Array, k: int) -> jax.Array:
    """[B, V, P] -> [G, V, P], the sum over the images of each group."""
    return x_BVP.reshape(-1, k, *x_BVP.shape[1:]).sum(1)


def _groups(x_BVP: jax.Array, k: int) -> jax.Array:
    """[B, V, P] -> [G, P], the sum over the images and views of each group."""
    return _sums(x_BVP, k).sum(1)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b)

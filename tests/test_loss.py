"""The loss against the authors' numbers and against pairs written out by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.common.errors import UserError
from cion_jax.common.typed_config import ConfigError, freeze
from cion_jax.tasks.distill.loss import (
    Logits,
    LossConfig,
    chunks,
    dimensions,
    identity_contrast,
    identity_guided_loss,
    make_targets,
    student_loss,
)
from tests import recipe

CASES = [(v, e, k) for v in (10, 6) for e, k in ((0, 2), (40, 4), (60, 6), (80, 8))]
guided = jax.jit(identity_guided_loss, static_argnums=(3, 4))


def draw(seed, v, epoch):
    """The fixtures' logits, brought from view-major rows to [B, V, P]."""
    g = np.random.default_rng([seed, v, epoch])
    student = (0.3 * g.standard_normal((v * 24, 64))).astype(np.float32)
    teacher = (0.1 * g.standard_normal((48, 64))).astype(np.float32)
    center = (0.1 * g.standard_normal((1, 64))).astype(np.float32)
    return student.reshape(v, 24, 64).swapaxes(0, 1), teacher.reshape(2, 24, 64).swapaxes(0, 1), center[0]


def view_major(x):
    return np.asarray(x).swapaxes(0, 1).reshape(-1, x.shape[-1])


@pytest.mark.parity
@pytest.mark.parametrize(("v", "epoch", "k"), CASES)
@pytest.mark.parametrize("weighting", ["released", "paper"])
def test_equals_the_reference(fixtures, v, epoch, k, weighting):
    spec, arrays = recipe.load(fixtures / "loss")
    case = next(c for c in spec["cases"] if c["tag"] == f"v{v}_e{epoch}")
    assert case["K"] == k
    student, teacher, center = draw(spec["seed"], v, epoch)
    config = LossConfig(weighting=weighting)
    value = jax.jit(jax.value_and_grad(lambda s: identity_guided_loss(s, teacher, center, k, config)[0]))
    loss, gradient = value(jnp.asarray(student))
    expected, name = (
        (case["loss_float64"], "grad_student")
        if weighting == "released"
        else (case["eq9_mean_over_terms"], "eq9_grad_student_f64")
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    reference = arrays[f"{case['tag']}_{name}"]
    assert np.abs(view_major(gradient) - reference).max() < 1e-5 * np.abs(reference).max()
    _, after = make_targets(Logits.whole(jnp.asarray(teacher)), jnp.asarray(center), config)
    np.testing.assert_allclose(after, arrays[f"{case['tag']}_center_after"][0], atol=1e-7)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_paper_weighting_is_the_mean_over_the_written_out_pairs(k):
    rng = np.random.default_rng(0)
    z, t = rng.normal(size=(6, 4, 5)), rng.normal(size=(6, 2, 5))
    p, log_s = jax.nn.softmax(t / 0.04), np.asarray(jax.nn.log_softmax(z / 0.1))
    terms = [
        -(np.asarray(p)[i, u] * log_s[j, v]).sum()
        for i, j, u, v in itertools.product(range(6), range(6), range(2), range(4))
        if i // k == j // k and (i, u) != (j, v)
    ]
    loss, _ = guided(jnp.asarray(z), jnp.asarray(t), jnp.zeros(5), k, LossConfig("paper"))
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)


def test_instance_groups_make_both_weightings_one():
    rng = np.random.default_rng(1)
    z, t, c = rng.normal(size=(4, 6, 8)), rng.normal(size=(4, 2, 8)), rng.normal(size=8)
    losses = [guided(z, t, c, 1, LossConfig(w))[0] for w in ("paper", "released")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_entropies_of_a_uniform_and_a_decided_teacher():
    z = jnp.zeros((2, 3, 16))
    _, uniform = guided(z, jnp.zeros((2, 2, 16)), jnp.zeros(16), 2, LossConfig())
    _, decided = guided(z, 9 * jnp.eye(16)[None, :2].repeat(2, 0), jnp.zeros(16), 2, LossConfig())
    np.testing.assert_allclose(uniform["teacher_entropy"], np.log(16), rtol=1e-6)
    np.testing.assert_allclose(uniform["student_entropy"], np.log(16), rtol=1e-6)
    assert decided["teacher_entropy"] < 1e-6


@pytest.mark.parametrize("k", [1, 2])
def test_identity_contrast_by_hand(k):
    """Every view of a student against all of the teacher's but that very view; the last two images are a part."""
    rng = np.random.default_rng(3)
    x_NVF, y_NUF = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in rng.normal(size=(2, 4, 3, 5)))
    y_NUF = y_NUF[:, :2]
    terms = []
    for image, view in itertools.product((2, 3), range(3)):
        keys = [(i, u) for i, u in itertools.product(range(4), range(2)) if (i, u) != (image, view)]
        weights = {key: np.exp(x_NVF[image, view] @ y_NUF[key] / 0.5) for key in keys}
        found = [weights[key] for key in keys if key[0] // k == image // k]
        terms.append(-np.mean(np.log(np.array(found) / sum(weights.values()))))
    images = jnp.array([2, 3])
    loss = identity_contrast(jnp.asarray(x_NVF[2:]), images, jnp.asarray(y_NUF), k, 0.5)
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)
    gradient = jax.grad(lambda y: identity_contrast(jnp.asarray(x_NVF[2:]), images, y, k, 0.5))(jnp.asarray(y_NUF))
    assert not np.any(gradient)


def test_dimensions_of_embeddings():
    """Eigenvalues 1, 1, 0 and 9, 1, 0, whatever the mean and the rotation: 2^2 / 2 and 10^2 / 82."""
    square = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]) * 2**0.5
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for x_NF, expected in ((square, 2), (square * [3, 1, 1], 100 / 82), (square * [1, 0, 0], 1), (square * 0, 0)):
        x_BUF = jnp.asarray((x_NF @ turn + 5).reshape(2, 2, 3), jnp.float32)
        np.testing.assert_allclose(dimensions(x_BUF), expected, atol=1e-5)


def test_sinkhorn_shares_the_prototypes_out_evenly():
    """Matrix scaling by hand: columns to equal sums, rows to one, thrice; a constant per prototype does not matter."""
    rng = np.random.default_rng(2)
    z, t, offset = (jnp.asarray(rng.normal(size=s)) for s in ((4, 3, 8), (4, 2, 8), (8,)))
    p = np.exp(np.asarray(t, np.float64).reshape(8, 8))
    for _ in range(3):
        p /= p.sum(0)
        p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(p.sum(0), 1, atol=0.05)
    config = LossConfig("paper", "sinkhorn", teacher_temperature=1.0)
    for logits, center in ((t, jnp.zeros(8)), (t + offset, jnp.ones(8))):
        loss, measured = guided(z, logits, center, 2, config)
        np.testing.assert_allclose(measured["teacher_entropy"], -(p * np.log(p)).sum(1).mean(), rtol=1e-5)
        log_s = np.asarray(jax.nn.log_softmax(z / 0.1), np.float64)
        same = np.einsum("bup,bup->", p.reshape(4, 2, 8), log_s[:, :2])
        pairs = np.einsum("gup,gvp->", p.reshape(2, 4, 8), log_s.reshape(2, 6, 8))
        np.testing.assert_allclose(loss, -(pairs - same) / (2 * (4 * 6 - 4)), rtol=1e-5)


def embedded(p, bottleneck=12, b=6, v=4):
    """Embeddings and prototypes of student and teacher, and a center."""
    rng = np.random.default_rng(3)
    shapes = (b, v, bottleneck), (bottleneck, p), (b, 2, bottleneck), (bottleneck, p), (p,)
    return [jnp.asarray(rng.normal(size=s) / 4, jnp.float32) for s in shapes]


def in_parts(x_BVF, kernel_FP, y_BUF, prototypes_FP, center_P, config):
    student = Logits.against(x_BVF, kernel_FP, jnp.matmul, config.chunk)
    teacher = Logits.against(y_BUF, prototypes_FP, jnp.matmul, config.chunk)
    targets, after = make_targets(teacher, center_P, config)
    return *student_loss(student, teacher, targets, 3, config), after


@pytest.mark.parametrize("chunk", [7, 40, 120])
@pytest.mark.parametrize("weighting", ["paper", "released"])
@pytest.mark.parametrize("centering", ["mean", "sinkhorn"])
def test_in_parts_equals_the_whole(chunk, weighting, centering):
    """120 prototypes in parts of 6, of 40 and in one, against logits made beforehand."""
    config = LossConfig(weighting, centering, chunk=chunk)
    operands = embedded(120)

    def whole(x, kernel, y, prototypes, center):
        return identity_guided_loss(x @ kernel, y @ prototypes, center, 3, config)

    def parts(*operands):
        return in_parts(*operands, config)[:2]

    found, expected = (jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(*operands) for f in (parts, whole))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_memory_does_not_grow_with_views_times_prototypes():
    """Twice the prototypes: more memory for them and their gradient, none for their logits (1.6 MB a thousand)."""

    def bytes_for(p):
        operands = embedded(p, b=30, v=14)
        gradient = jax.jit(jax.grad(lambda *o: in_parts(*o, LossConfig(chunk=1000))[0], argnums=(0, 1)))
        return gradient.lower(*operands).compile().memory_analysis().temp_size_in_bytes

    prototypes = 4000 * 12 * 4
    assert bytes_for(8000) - bytes_for(4000) < 10 * prototypes < 4000 * 30 * 14 * 4 / 3


def test_prototypes_pass_by_in_few_equal_chunks():
    assert [chunks(65536, 8192), chunks(65336, 8192), chunks(910, 130), chunks(100, 8192)] == [8, 8, 7, 1]
    with pytest.raises(UserError, match=r"65537 prototypes .* 9 to 36 equal chunks .* e\.g\. 65664 a device"):
        chunks(65537, 8192)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk": 0}, r"config.chunk must be in \[1, .*, got 0"),
        ({"teacher_temperature": 0.0}, r"config.teacher_temperature must be in \(0, .*, got 0.0"),
        ({"center_momentum": 2.0}, r"config.center_momentum must be in \[0, 1\], got 2.0"),
        ({"center_momentum": float("nan")}, "config.center_momentum takes a finite number, got nan"),
        ({"centring": "mean"}, "config.centring is called config.centering now"),
    ],
)
def test_settings_out_of_bounds(settings, message):
    with pytest.raises(ConfigError, match=message):
        freeze(LossConfig, settings)


def test_settings_of_old_files_are_taken_under_their_old_names():
    assert freeze(LossConfig, {"centring": "sinkhorn"}, old_names=True).centering == "sinkhorn"

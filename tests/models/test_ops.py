"""What a CPU is given, against the plain operation that all other platforms get; with gradients, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.common import target
from cion_jax.models import ops

CASES = {
    "three by three": (ops.convolution, (1, 1), (2, 9, 6, 3), (3, 3, 3, 5)),
    "every other pixel, odd size": (ops.convolution, (2, 1), (3, 9, 7, 4), (3, 3, 4, 2)),
    "narrow stem of an odd size": (ops.convolution, (2, 3), (2, 13, 10, 3), (7, 7, 3, 4)),
    "wide stem": (ops.convolution, (2, 3), (2, 12, 10, 3), (7, 7, 3, 33)),
    "stem": (ops.convolution, (2, 3), (2, 12, 10, 3), (7, 7, 3, 4)),
    "without padding": (ops.convolution, (1, 0), (2, 9, 8, 3), (3, 3, 3, 4)),
    "patches that leave a row": (ops.convolution, (4, 0), (2, 9, 8, 3), (4, 4, 3, 4)),
    "narrow": (ops.narrow, (), (2, 4, 2, 3), (3, 3, 3, 4)),
    "pointwise": (ops.pointwise, (2,), (2, 5, 4, 3), (1, 1, 3, 4)),
}


def _expected(function, settings):
    stride, padding = {ops.narrow: (1, 1), ops.pointwise: (*settings, 0)}.get(function, settings)
    return partial(ops.plain, stride=stride, padding=padding)


@pytest.mark.parametrize("case", CASES)
def test_convolutions_and_their_gradients(case):
    function, settings, *shapes = CASES[case]
    _same(lambda x, kernel: function(x, kernel, *settings), _expected(function, settings), shapes)


def test_attention_and_its_gradients():
    def expected(q, k, v):
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 2), v)

    _same(ops.attention, expected, [(2, 5, 3, 4), (2, 6, 3, 4), (2, 6, 3, 4)])


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_only_a_cpu_gets_products_for_the_gradient_of_a_kernel(platform):
    x, kernel = jnp.ones((2, 8, 4, 3)), jnp.ones((3, 3, 3, 5))
    step = jax.jit(jax.grad(lambda kernel: ops.convolution(x, kernel, 1, 1).sum()))
    program = step.trace(kernel).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.dot_general" in program) == (platform == "cpu")


def test_image_by_image_is_all_at_once():
    def layer(x):
        return jnp.tanh(x).sum((1, 2))

    _same(lambda x: ops.image_by_image(layer, x), layer, [(3, 4, 2, 5)])


def _same(function, expected, shapes):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        arguments = [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]
        got, pull = jax.vjp(function, *arguments)
        want, own_pull = jax.vjp(expected, *arguments)
        gradient = rng.standard_normal(want.shape)
        for a, b in zip((got, *pull(gradient)), (want, *own_pull(gradient)), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_what_is_for_an_nvidia_gpu_is_chosen_where_the_program_is_compiled():
    x = jnp.ones(3)

    def twice_or_thrice(x):
        return ops.by_cuda(lambda x: 2 * x, lambda x: 3 * x, x)

    def text(platform):
        return jax.jit(lambda x: twice_or_thrice(x)).trace(x).lower(lowering_platforms=(platform,)).as_text()

    assert "2.0" not in text("cuda")  # no GPU is meant
    with target.ahead_of_cuda():
        assert "2.0" in text("cuda")
        assert "2.0" not in text("cpu")
        assert jax.jit(twice_or_thrice)(x).tolist() == [3, 3, 3]

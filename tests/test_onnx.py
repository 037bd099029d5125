"""JAX's operations in ONNX, one by one, for batches that the file does not know."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax

from cion_jax.exporting import onnx_file
from cion_jax.exporting.onnx_graph import NotInOnnx
from cion_jax.models import activations

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 3, 4)).astype(np.float32)
DEPTHWISE = RNG.standard_normal((3, 3, 1, 6)).astype(np.float32)
MATRIX = RNG.standard_normal((3, 5)).astype(np.float32)
POWER = np.array([2.5], np.float32)
TOKEN = RNG.standard_normal((1, 1, 3)).astype(np.float32)


def conv(x, kernel, stride, padding, groups, dilation=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=numbers,
        feature_group_count=groups,
    )


def windows(x):
    """Two by two windows become images of the batch, and go back."""
    B, H, W, C = x.shape
    parts = x.reshape(B, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, C)
    parts = jax.nn.softmax(parts, axis=1) - parts.max(1, keepdims=True)
    return parts.reshape(B, H // 2, W // 2, 2, 2, C).transpose(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)


def overlap(x):
    """What shifted cuts leave when they are added where they came from."""
    cuts = lambda y: jnp.stack([y[:, 1:, :-1], y[:, :-1, 1:]], 3)  # noqa: E731
    return jax.linear_transpose(cuts, x)(cuts(x))[0]


def per_tap(x):
    return lax.platform_dependent(x, cpu=lambda y: y * jnp.nan, default=lambda y: 2 * y)


OPERATIONS = {
    "convolution": lambda x: conv(x, KERNEL, 2, ((1, 1), (0, 2)), 1),
    "dilated": lambda x: conv(x, KERNEL, 1, ((2, 2), (2, 2)), 1, dilation=2),
    "depthwise": lambda x: conv(x, DEPTHWISE, 1, "SAME", 3),
    "max_pool": lambda x: lax.reduce_window(
        x, -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    ),
    "linear": lambda x: x @ MATRIX,
    "attention": lambda x: jnp.einsum("bhwc,bgwc->bwhg", x, x[:, :3]),
    "gram": lambda x: jnp.einsum("bhwc,bhwd->bcd", x, x),
    "token": lambda x: jnp.concatenate(
        [jnp.broadcast_to(TOKEN, (x.shape[0], 1, 3)), x.reshape(x.shape[0], -1, 3)], axis=1
    ),
    "tokens_of_windows": lambda x: jnp.broadcast_to(TOKEN, (4 * x.shape[0], 2, 3)).reshape(x.shape[0], 8, 3) + x[:, 0],
    "windows": windows,
    "overlap": overlap,
    "pad": lambda x: lax.pad(x, np.float32(7), ((0, 0, 0), (1, 2, 0), (-1, -2, 0), (0, 0, 0))),
    "pad_by_nothing": lambda x: lax.pad(x, np.float32(7), ((0, 0, 0),) * 4),
    "cut": lambda x: lax.slice_in_dim(x[:, 1:7, 3], 1, 6, 2, axis=1) + x[:, 4:7, 4],
    "flip": lambda x: jnp.stack(jnp.split(x, [1, 2], axis=3)[::-1]).sum(0),
    "unstack": lambda x: jnp.unstack(x, axis=1)[2] * jnp.unstack(x, axis=1)[0],
    "norm": lambda x: (x - x.mean((1, 2), keepdims=True)) * lax.rsqrt(jnp.square(x).mean(3, keepdims=True) + 1e-5),
    "gelu": lambda x: activations.gelu(x / 50),
    "gates": lambda x: jax.nn.hard_sigmoid(x / 100) * jax.nn.sigmoid(x / 100) * jnp.tanh(x / 100) * jax.nn.relu(x - 3),
    "select": lambda x: jnp.where(np.arange(8)[:, None] % 3 == 0, x, -(x**3)),
    "power_mean": lambda x: (jnp.where(x >= 40, x / 100, 0.4) ** POWER).mean((1, 2)) ** (1 / POWER),
    "clamp": lambda x: lax.clamp(np.float32(3), x, np.float32(90)),
    "platform": per_tap,
    "pooled": lambda x: jnp.sqrt(jnp.exp(-x / 100).sum((1, 2), keepdims=True).squeeze((1, 2))),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(tmp_path, name):
    function = lambda image: OPERATIONS[name](image.astype(jnp.float32))  # noqa: E731
    size = (8, 8)
    onnx_file.write(tmp_path / "f.onnx", function, size)
    onnx.checker.check_model(tmp_path / "f.onnx", full_check=True)
    run = onnx_file.open_program(tmp_path / "f.onnx")
    for count in (1, 3):
        images = RNG.integers(0, 256, (count, *size, 3)).astype(np.uint8)
        expected = function(images) if name != "platform" else 2.0 * images
        np.testing.assert_allclose(run(images), expected, rtol=1e-5, atol=1e-5 * np.std(expected))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sort(x, 1), "no ONNX for JAX's sort"),
        (lambda x: lax.pad(x, np.uint8(0), ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))), "padding between elements"),
    ],
)
def test_what_has_no_translation_is_named(tmp_path, function, message):
    with pytest.raises(NotInOnnx, match=message):
        onnx_file.write(tmp_path / "f.onnx", function, (4, 4))
    assert not [*tmp_path.iterdir()]

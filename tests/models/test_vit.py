"""The plain ViT against a few lines of NumPy under timm's names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cion_jax import models
from cion_jax.common.typed_config import ConfigError
from cion_jax.models import vit
from cion_jax.weights import torch_names

HEADS, DEPTH, WIDTH = 2, 3, 16


def norm(x, w, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x):
    return x * np.vectorize(lambda v: float(jax.scipy.stats.norm.cdf(v)))(x)


def reference(image_HWC, w):
    """[H, W, 3] -> [C], token by token as timm's VisionTransformer with pool "token" and no head."""
    h, width = image_HWC.shape[0] // 16, image_HWC.shape[1] // 16
    patches = image_HWC.reshape(h, 16, width, 16, 3).transpose(0, 2, 4, 1, 3).reshape(h * width, -1)
    tokens = patches @ w["patch_embed.proj.weight"].reshape(WIDTH, -1).T + w["patch_embed.proj.bias"]
    x = np.concatenate([w["cls_token"][0], tokens]) + w["pos_embed"][0]
    for i in range(DEPTH):
        qkv = linear(norm(x, w, f"blocks.{i}.norm1"), w, f"blocks.{i}.attn.qkv")
        q, k, v = qkv.reshape(len(x), 3, HEADS, WIDTH // HEADS).transpose(1, 2, 0, 3)
        mixed = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS)) @ v
        x = x + linear(mixed.transpose(1, 0, 2).reshape(len(x), WIDTH), w, f"blocks.{i}.attn.proj")
        hidden = gelu(linear(norm(x, w, f"blocks.{i}.norm2"), w, f"blocks.{i}.mlp.fc1"))
        x = x + linear(hidden, w, f"blocks.{i}.mlp.fc2")
    return norm(x, w, "norm")[0]


@pytest.fixture(scope="module")
def network():
    """(graphdef, shapes of params, timm's state dict with positions of 4x2 patches)."""
    graphdef, params, _ = models.split(vit.ViT(WIDTH, HEADS, DEPTH, vit.PlainPatchEmbed, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    named = {name: rng.normal(size=shape) for name, shape in torch_names.expected(params, {})[0].items()}
    named = {name: a / np.sqrt(max(1, np.prod(a.shape[1:]))) if a.ndim > 1 else a for name, a in named.items()}
    named["pos_embed"] = rng.normal(size=(1, 9, WIDTH))
    return graphdef, params | {"pos_embed": named["pos_embed"].astype("f4")}, named


def test_equals_the_reference(network):
    graphdef, params, named = network
    params, _ = torch_names.from_torch({name: a.astype("f4") for name, a in named.items()}, params, {})
    images = np.random.default_rng(1).normal(size=(2, 64, 32, 3))
    got = models.merge(graphdef, params, {})(jnp.asarray(images, jnp.float32))
    np.testing.assert_allclose(got, [reference(image, named) for image in images], rtol=0, atol=2e-5)


def test_positions_of_another_grid_than_the_images_are_refused(network):
    graphdef, params, _ = network
    with pytest.raises(ConfigError, match=r"position embeddings of 8 patches, got an image of 2x2"):
        models.merge(graphdef, params, {})(jnp.zeros((1, 32, 32, 3)))

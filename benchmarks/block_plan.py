"""Memory traffic of a few blocks of ViT-B on a chip that is not there: `python -m benchmarks.block_plan`.

    PYTHONPATH=.libtpu python -m benchmarks.block_plan --options=plain,class_token_apart --tokens=129 --images=48
    PYTHONPATH=.libtpu python -m benchmarks.block_plan --options=stem --images=48
    python -m benchmarks.block_plan --options=plain,padded_tokens --topology=h200:1 --images=512

Forward and backward of `--depth` blocks, or of the stem, in bfloat16, compiled for one chip (libtpu or JAX's CUDA
packages as in `cion_jax.plan`), counted by `cion_jax.distributed.hlo_traffic`: a minute of a core a row where the whole
step takes ten. It says how two spellings compare; in the whole step less of a block's activations stays on the chip.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import nnx
from jax.sharding import SingleDeviceSharding

from benchmarks.common import header, table
from cion_jax import models
from cion_jax.distributed import ahead
from cion_jax.distributed.hlo_traffic import Program
from cion_jax.models import layers
from cion_jax.models.attention import Part
from cion_jax.models.options import TOKENS
from cion_jax.models.vit import Block, PatchEmbed, linear_of

FEATURES, HEADS = 768, 12
PARTS = ("stem", "attention", "mlp", "norm", "other")


class Blocks(nnx.Module):
    """Blocks of ViT-B, as the options say."""

    def __init__(self, depth: int, options: tuple[str, ...], images: int, tokens: int):
        kw: dict = {"dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}
        linear = linear_of(options)
        self.blocks = layers.Layers(Block(FEATURES, HEADS, 0.0, linear, **kw) for _ in range(depth))
        self.part = None
        self.shape: tuple[int, ...] = (images, tokens, FEATURES)
        if "class_token_apart" in options:
            self.part = Part(images, tokens - 1, tokens - 1, apart=True)
        elif "padded_tokens" in options:
            self.part = Part(images, tokens + -tokens % TOKENS, tokens)
        if self.part:
            self.shape = (self.part.rows, FEATURES)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of `shape` -> of `shape`."""
        return layers.run(self.blocks, x, train=True, key=None, remat=False, part=self.part)


class Stem(nnx.Module):
    """ViT-B's, of images of 256x128."""

    def __init__(self, images: int):
        self.patch_embed = PatchEmbed(FEATURES, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        self.shape = (images, 256, 128, 3)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of `shape` -> [images, 16, 8, FEATURES]."""
        return self.patch_embed(jax.lax.stop_gradient(x), train=True)  # nobody wants the gradient of an image


def compiled(options: str, device: Any, depth: int, images: int, tokens: int) -> Program:
    """Value and gradient of a loss of the output of blocks or of the stem, for one device."""
    names = () if options == "plain" else tuple(options.split("+"))
    module: Any = nnx.eval_shape(lambda: Stem(images) if options == "stem" else Blocks(depth, names, images, tokens))
    graphdef, params, stats = models.split(module)
    where = SingleDeviceSharding(device)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.square(models.merge(graphdef, params, stats)(x).astype(jnp.float32)).sum()

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    x = jax.ShapeDtypeStruct(module.shape, jnp.bfloat16, sharding=where)
    program = ahead.compiled(jax.jit(jax.grad(loss, (0, 1))), device, jax.tree.map(abstract, params), x)
    return Program(str(program.as_text()))


def _row(options: str, device: Any) -> tuple:
    args, began = flags.FLAGS, time.perf_counter()
    program = compiled(options, device, args.depth, args.images, args.tokens)
    parts = program.by_scope(PARTS[:-1])
    moved = [parts.get(name, (0, 0))[0] / 1e9 for name in PARTS]
    seconds = time.perf_counter() - began
    return options, *(f"{x:.3f}" for x in (sum(moved), *moved)), f"{program.flops() / 1e12:.3f}", f"{seconds:.0f}"


def main(_: list[str]) -> None:
    args = flags.FLAGS
    header(f"{args.depth} blocks of ViT-B, {args.images} images of {args.tokens} tokens, for {args.topology}")
    device = ahead.devices_of(args.topology)[0][0]
    table(["options", "GB", *PARTS, "TFLOP", "compile s"], (_row(options, device) for options in args.options))


if __name__ == "__main__":
    flags.DEFINE_list("options", ["plain", "class_token_apart"], "Sets of options, each NAME+NAME or plain; or stem.")
    flags.DEFINE_string("topology", "v5e:2x2", "As in `cion_jax.plan`; one chip of it is compiled for.")
    flags.DEFINE_integer("depth", 1, "Blocks.", lower_bound=1)
    flags.DEFINE_integer("images", 48, "Images of one chip.", lower_bound=1)
    flags.DEFINE_integer("tokens", 129, "Of an image, the class token among them.", lower_bound=2)
    app.run(main)

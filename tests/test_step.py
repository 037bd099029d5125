"""The training step on meshes of several kinds: what it computes, and what it never gathers."""

import re
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from cion_jax.common import typed_config
from cion_jax.distributed import sharding
from cion_jax.models import layers, registry
from cion_jax.tasks.distill.config import Config
from cion_jax.tasks.distill.task import Distill
from cion_jax.training.step import init_state, make_trainer
from tests import miniatures, toy

miniatures.register()
K, BATCH = 2, 16


def changed(config, **changes) -> Config:
    return typed_config.freeze(Config, toy.changed(config, {}, changes))


def config_of(name, **changes) -> Config:
    small = {"data__canvas": (64, 32), "data__curriculum": ((0, K),), "data__batch_size": BATCH}
    views = {n.replace(".", "__"): v for n, v in (toy.small_views(64, 32) | {"views.local.width": 32}).items()}
    return toy.config("anywhere", model__name=name, **small | views | changes)


def batch_of(config, rng=0):
    image = np.random.default_rng(rng).integers(0, 256, (BATCH, *config.data.canvas, 3), np.uint8)
    return {"image": image, "size": np.full((BATCH, 2), config.data.canvas, np.int32)}


def build(config, mesh):
    """(step, state, batch) on a mesh."""
    task = Distill(config)
    trainer = make_trainer(task, mesh, (10,) * config.train.epochs)
    # The same numbers on every mesh: they are drawn on one device.
    state = jax.device_get(jax.jit(lambda: init_state(task))())
    return (
        trainer.step,
        jax.device_put(state, trainer.shardings),
        sharding.put_batch(batch_of(config), mesh, task.fields),
    )


def run(config, sizes=(1, 1, 1), types=AxisType.Auto, steps=2):
    """State and measurements after some steps, on the host."""
    mesh = jax.make_mesh(sizes, ("data", "fsdp", "model"), (types,) * 3, devices=jax.devices()[: np.prod(sizes)])
    step, state, batch = build(config, mesh)
    for _ in range(steps):
        state, measured = step(state, batch, K)
    return jax.device_get((state, measured))


def assert_equal(a, b, tolerance=1e-5):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


class Plain(nnx.Module):
    """Without BatchNorm, whose statistics would be a part's, and smooth: a ReLU at 0 makes much of a rounding."""

    features = 16

    def __init__(self, *, dtype=jnp.float32, remat=False, rngs):
        kw = {"stride": 2, "padding": 1, "dtype": dtype, "rngs": rngs}
        self.stem, self.block, self.remat = layers.Conv(3, 8, 3, **kw), _Block(8, 16, 3, **kw), remat

    def __call__(self, x_BHWC, *, train=False, key=None):
        x = nnx.gelu(self.stem(x_BHWC))
        return layers.run([self.block], x, train=train, key=key, remat=self.remat).mean((1, 2))


class _Block(layers.Conv):
    def __call__(self, x, *, train=False, key=None):
        return nnx.gelu(super().__call__(x))


registry.BACKBONES.register("plain", partial(Plain))


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "contrast"), [slow("toy_vit", 0.0), ("toy", 0.0), ("toy", 1.0)])
def test_a_mesh_with_explicit_axes_equals_one_device(name, contrast):
    config = config_of(name, loss__contrast=contrast)
    assert_equal(run(config), run(config, (2, 2, 2), AxisType.Explicit))


@pytest.mark.parametrize("name", ["plain", slow("toy_vit"), slow("toy_convnext"), slow("toy_ghostnet")])
def test_rematerialization_changes_nothing(name):
    config = config_of(name, model__drop_path=0.0)
    assert_equal(run(config), run(changed(config, model__remat=True)))


@pytest.mark.parametrize(
    ("name", "loss", "sizes"),
    [
        ("plain", {}, (2, 1, 2)),
        ("plain", {"contrast": 1.0}, (2, 1, 2)),
        slow("toy_convnext", {}, (2, 1, 2)),
        slow("toy_convnext", {"centering": "sinkhorn"}, (1, 1, 1)),
        slow("toy_swin", {"centering": "sinkhorn"}, (1, 2, 2)),
    ],
)
def test_accumulated_gradients_are_those_of_the_batch(name, loss, sizes):
    """Of networks without BatchNorm, whose statistics would be a part's."""
    config = config_of(name, model__drop_path=0.0, **{f"loss__{setting}": value for setting, value in loss.items()})
    whole, parts = run(config, sizes), run(changed(config, train__accumulate=4), sizes)
    assert_equal(whole, parts)


class Telling(toy.Toy):
    """Tells the keys that its random numbers are drawn with."""

    keys: ClassVar[set] = set()

    def __call__(self, x_BHWC, *, train=False, key=None):
        jax.debug.callback(lambda data: self.keys.add(tuple(data.tolist())), jax.random.key_data(key))
        return super().__call__(x_BHWC, train=train, key=key)


def test_every_part_of_a_batch_draws_its_own_noise():
    """The student once for global and once for local views in each of 4 parts, the teacher once."""
    registry.BACKBONES.register("telling", partial(Telling))
    run(config_of("telling", train__accumulate=4), steps=1)
    jax.effects_barrier()
    assert len(Telling.keys) == 2 * 4 + 1


def test_groups_stay_together():
    config = config_of("toy", train__accumulate=4)
    message = r"16 images cannot be dealt out as whole groups of K = 2 to 16 shares"
    with pytest.raises(typed_config.ConfigError, match=message):
        run(config, (4, 1, 1))


def test_logits_are_never_gathered_nor_whole():
    """In the compiled program nothing is as large as the logits, and what crosses devices has no axis of prototypes but
    the prototypes' gradient. 1820 prototypes, 910 on a device, 130 at a time; 4 images with 4 views on a device."""
    config = config_of("toy", model__prototypes=1820, model__bottleneck=48, loss__chunk=130)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "model"), (AxisType.Auto,) * 3)
    step, state, batch = build(config, mesh)
    program = step.lower(state, batch, K).compile().as_text()
    shapes = {tuple(map(int, s.split(","))) for s in re.findall(r"[a-z]+\d+\[([\d,]+)\]", program)}
    assert (7, 48, 130) in shapes
    wide = {s for s in shapes if {910, 1820} & set(s)}
    assert wide
    assert {int(np.prod(s)) // max(s) for s in wide} <= {1, 48}
    gathered = re.findall(r"= \(?[a-z]+\d+\[([\d,]+)\][^=]* all-gather\(", program)
    assert gathered
    assert not [g for g in gathered if {130, 260, 910, 1820} & set(map(int, g.split(",")))]

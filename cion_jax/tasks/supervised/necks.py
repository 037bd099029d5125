"""What stands behind a backbone that is fine-tuned, and MGN, which takes the backbone apart.

In training a network maps images to `Output` or `Parts`; what stands for an image at test time is another network
without classifiers, with a part of the same arrays (`Necked`, `Granular`, or the backbone alone). Attributes bear the
names of the PyTorch state dicts (`cion_jax/weights/torch_names.py`).

Shapes: B images, D features, C classes, P parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import initializers

from cion_jax.common.typed_config import ConfigError
from cion_jax.models import registry
from cion_jax.models.layers import BatchNorm, Conv, Layers, Linear, l2_normalize, run, wide
from cion_jax.models.pooling import max_pool
from cion_jax.models.resnet import ResNet

Served = Literal["before", "after"]

BRANCHES = (1, 2, 3)
HEADS = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
WIDTH = 256  # of a head's feature
_SHARED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2"}  # parts of a ResNet that MGN's branches share
GEM_FLOOR = 1e-6  # below which a value counts as this in generalized-mean pooling
_CLASSIFIER = initializers.normal(0.001)
_UNIFORM = initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's own: Kaiming with a = sqrt 5


class Output(NamedTuple):
    """What the losses of BNNeck take.

    Attributes:
      features: [B, D] before the neck: of the triplet loss.
      logits: [B, C]: of the identity loss.
    """

    features: Array
    logits: Array


class Parts(NamedTuple):
    """What the losses of MGN take.

    Attributes:
      features: [B, P, 256] after the neck, in the order of `HEADS`: of the triplet losses.
      cosines: [B, P, C] of features and class weights: of the identity losses.
    """

    features: Array
    cosines: Array


class NeckNorm(BatchNorm):
    """BatchNorm whose bias stays as it is.

    The bias is kept among the running statistics, not among the parameters: it has no gradient, no decay, no moments.
    """

    def __init__(self, features: int, *, dtype: Any, rngs: nnx.Rngs):
        super().__init__(features, dtype=dtype, rngs=rngs)
        self.bias = nnx.BatchStat(jnp.zeros(features, jnp.float32))  # type: ignore[assignment]


class BNNeck(nnx.Module):
    """BatchNorm and a linear classifier: triplet loss before, identity loss after the norm (arXiv 1903.07071).

    Args:
      features: D.
      classes: C.
    """

    def __init__(self, features: int, classes: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": jnp.promote_types(dtype, jnp.float32), "rngs": rngs}
        self.bottleneck = NeckNorm(features, **kw)
        self.classifier = Linear(features, classes, False, init=_CLASSIFIER, **kw)

    def logits(self, x_BD: Array, *, train: bool) -> Array:
        """[B, D] -> [B, C]."""
        return self.classifier(self.bottleneck(x_BD, train=train))


class BNNeckNetwork(BNNeck):
    """Backbone and BNNeck.

    Args:
      name: a backbone of `cion_jax.models`.
      classes: C.
      drop_path, remat: of the backbone.
      resampled: whether a ViT's position embeddings are resampled at their own size, too.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        *,
        dtype: Any = jnp.float32,
        drop_path: float | None = None,
        remat: bool = False,
        resampled: bool = False,
        rngs: nnx.Rngs,
    ):
        backbone: Any = registry.create(name, dtype=dtype, drop_path=drop_path, remat=remat, rngs=rngs)
        if resampled:
            backbone.resampled = True
        super().__init__(backbone.features, classes, dtype=dtype, rngs=rngs)
        self.backbone, self.features = backbone, backbone.features

    def __call__(self, x_BHWC: Array, *, train: bool = False, key: Array | None = None) -> Output:
        """[B, H, W, 3] normalized images; `key` feeds stochastic depth."""
        features = wide(self.backbone(x_BHWC, train=train, key=key))
        return Output(features, self.logits(features, train=train))


class Necked(nnx.Module):
    """Backbone and neck without a classifier: the feature after the neck. `registry.create("NAME+bnneck")`.

    Args:
      name: a backbone of `cion_jax.models`.
      remat: of the backbone.
    """

    def __init__(self, name: str, *, dtype: Any = jnp.float32, remat: bool = False, rngs: nnx.Rngs):
        backbone: Any = registry.create(name, dtype=dtype, remat=remat, rngs=rngs)
        self.backbone, self.features = backbone, backbone.features
        self.bottleneck = NeckNorm(self.features, dtype=jnp.promote_types(dtype, jnp.float32), rngs=rngs)

    def __call__(self, x_BHWC: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """[B, H, W, 3] normalized images -> [B, D]."""
        return self.bottleneck(wide(self.backbone(x_BHWC, train=train, key=key)), train=train)


class GeneralizedMean(nnx.Module):
    """Pooling by the p-norm of values (arXiv 1711.02512); p starts at 3 and trains."""

    def __init__(self) -> None:
        self.p = nnx.Param(jnp.full(1, 3.0, jnp.float32))

    def __call__(self, x_BHWC: Array) -> Array:
        """[B, H, W, D] -> [B, D], float32 or wider. Values below 1e-6 count as that, without gradient."""
        x, p = wide(x_BHWC), self.p[...]
        return (jnp.where(x >= GEM_FLOOR, x, GEM_FLOOR) ** p).mean((1, 2)) ** (1 / p)


class Part(nnx.Module):
    """Pooling, reduction to `width` features, neck."""

    def __init__(self, inputs: int, width: int = WIDTH, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": jnp.promote_types(dtype, jnp.float32), "rngs": rngs}
        self.pool_layer = GeneralizedMean()
        self.bottleneck = Layers([Conv(inputs, width, 1, bias=False, **kw), NeckNorm(width, **kw)])
        self.bottleneck[1].scale.set_value(1 + 0.02 * jax.random.normal(rngs.params(), (width,), jnp.float32))

    def __call__(self, x_BHWC: Array, *, train: bool) -> Array:
        """[B, H, W, D] -> [B, width] features after the neck."""
        reduction, norm = self.bottleneck
        return norm(reduction(self.pool_layer(x_BHWC)[:, None, None]), train=train)[:, 0, 0]


class PartHead(Part):
    """A part and a classifier by cosines."""

    def __init__(self, inputs: int, classes: int, width: int = WIDTH, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        super().__init__(inputs, width, dtype=dtype, rngs=rngs)
        dtype = jnp.promote_types(dtype, jnp.float32)
        self.classifier = Linear(width, classes, False, init=_UNIFORM, dtype=dtype, rngs=rngs)

    def cosines(self, feature_BD: Array) -> Array:
        """[B, width] features -> [B, C] cosines of the angles to the class weights."""
        kernel_DC = l2_normalize(self.classifier.kernel[...].T).T
        return jnp.matmul(l2_normalize(feature_BD), kernel_DC, precision=jax.lax.Precision.HIGHEST)


class Granular(nnx.Module):
    """Multiple granularity network (arXiv 1804.01438) as FastReID builds it, on a ResNet of last stride 1, without
    classifiers: its features. `registry.create("NAME+mgn")`.

    Stem, two stages and the first block of the third are shared. Three branches, equal at the start, have the rest
    and a BatchNorm each. Eight heads look at the three maps, at the halves of the second and the thirds of the third.

    Args:
      name: a ResNet of `cion_jax.models`.
      remat: recompute blocks in the backward pass.
      head: f(width of a map, dtype=, rngs=) -> `Part`.
    """

    def __init__(self, name: str, *, dtype: Any = jnp.float32, remat: bool = False, rngs: nnx.Rngs, head: Any = Part):
        resnet = _resnet(name, dtype=dtype, remat=remat, rngs=rngs)
        first, *rest = resnet.layer3
        shared = {0: resnet.conv1, 1: resnet.bn1, 4: resnet.layer1, 5: resnet.layer2, 6: first}
        self.backbone, self.remat = Layers(shared), remat
        branch = Layers([Layers(rest), resnet.layer4])
        for number in BRANCHES:
            setattr(self, f"b{number}", branch if number == 1 else copy(branch))
            setattr(self, f"heads_extra_bn_b{number}", BatchNorm(resnet.features, dtype=dtype, rngs=rngs))
        for part in HEADS:
            setattr(self, f"{part}_head", head(resnet.features, dtype=dtype, rngs=rngs))
        self.features = len(HEADS) * WIDTH

    def __call__(self, x_BHWC: Array, *, train: bool = False, key: Array | None = None) -> Any:
        """[B, H, W, 3] normalized images, H and W multiples of 16 -> [B, 8 * 256], parts after the neck; `key` is
        unused, there is no randomness."""
        del key
        return jnp.concatenate(self.parts(x_BHWC, train=train), 1)

    def parts(self, x_BHWC: Array, *, train: bool, frozen: bool = False) -> list[Array]:
        """Features [B, 256] of every head; arguments as of `MGN`."""
        maps = self._maps(x_BHWC, train=train, frozen=frozen)
        return [head(x, train=train) for head, x in zip(self.heads, maps, strict=True)]

    @property
    def heads(self) -> list[Any]:
        """In the order of HEADS."""
        return [getattr(self, f"{name}_head") for name in HEADS]

    def _maps(self, x_BHWC: Array, *, train: bool, frozen: bool) -> list[Array]:
        """What every head looks at, in the order of HEADS."""
        x = self._shared(x_BHWC, train=train and not frozen)
        whole, parts = [], []
        for number in BRANCHES:
            y = x
            for stage in getattr(self, f"b{number}"):
                y = run(stage, y, train=train and not frozen, key=None, remat=self.remat)
            y = jax.lax.stop_gradient(y) if frozen else y
            y = getattr(self, f"heads_extra_bn_b{number}")(y, train=train)
            whole.append(y)
            parts += stripes(y, number) if number > 1 else []
        return whole + parts

    def _shared(self, x_BHWC: Array, *, train: bool) -> Array:
        conv, norm, layer1, layer2, first = self.backbone
        x = max_pool(jax.nn.relu(norm(conv(x_BHWC), train=train)), 3, 2, 1)
        for blocks in (layer1, layer2, [first]):
            x = run(blocks, x, train=train, key=None, remat=self.remat)
        return x


class MGN(Granular):
    """The same with classifiers, for training.

    Args:
      name: a ResNet of `cion_jax.models`.
      classes: C.
      remat: recompute blocks in the backward pass.
    """

    def __init__(self, name: str, classes: int, *, dtype: Any = jnp.float32, remat: bool = False, rngs: nnx.Rngs):
        super().__init__(name, dtype=dtype, remat=remat, rngs=rngs, head=partial(PartHead, classes=classes))

    def __call__(self, x_BHWC: Array, *, train: bool = False, frozen: bool = False, key: Array | None = None) -> Parts:
        """[B, H, W, 3] normalized images, H and W multiples of 16.

        Args:
          train: batch statistics.
          frozen: those of backbone and branches stay as they are all the same, and nothing of them has a gradient.
          key: unused, there is no randomness.
        """
        del key
        features = self.parts(x_BHWC, train=train, frozen=frozen)
        cosines = [head.cosines(feature) for head, feature in zip(self.heads, features, strict=True)]
        return Parts(jnp.stack(features, 1), jnp.stack(cosines, 1))


def copy(module: nnx.Module) -> Any:
    """A module equal to another, with arrays of its own: shared ones could not be donated to a training step."""
    copied = nnx.clone(module)
    nnx.update(copied, jax.tree.map(jnp.copy, nnx.state(copied)))
    return copied


def stripes(x_BHWC: Array, count: int) -> list[Array]:
    """Horizontal parts of maps, of equal height or, where that does not divide, the last one lower (torch.chunk).

    Raises:
      ValueError: not enough rows.
    """
    rows = x_BHWC.shape[1]
    height = -(-rows // count)
    if height * (count - 1) >= rows:
        raise ValueError(f"{rows} rows of a map do not give {count} parts of {height}; make the images higher")
    return [x_BHWC[:, at : at + height] for at in range(0, rows, height)]


def spread(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A ResNet's parameters or running statistics -> those of an MGN's backbone and branches: b1, b2 and b3 are equal.

    Args:
      tree: nested by attribute names, as `models.split` gives it.
    """
    first, rest = tree["layer3"]["0"], {str(int(n) - 1): v for n, v in tree["layer3"].items() if n != "0"}
    shared = {number: tree[name] for number, name in _SHARED.items() if name in tree}
    branch = {"0": rest, "1": tree["layer4"]}
    return {"backbone": {**shared, "6": first}, **{f"b{number}": branch for number in BRANCHES}}


def joined(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `spread`, of the first branch: an MGN's parameters or running statistics -> a ResNet's."""
    shared, (rest, last) = tree["backbone"], (tree["b1"]["0"], tree["b1"]["1"])
    named = {name: shared[number] for number, name in _SHARED.items() if number in shared}
    return {**named, "layer3": {"0": shared["6"]} | {str(int(n) + 1): v for n, v in rest.items()}, "layer4": last}


def without_classifiers(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters or running statistics of a network for training -> those of `Necked` or `Granular`."""
    named = {name: part for name, part in tree.items() if name != "classifier"}
    return {name: without_classifiers(part) if isinstance(part, Mapping) else part for name, part in named.items()}


def _resnet(name: str, **kw: Any) -> Any:
    backbone = registry.create(name, **kw)
    if not isinstance(backbone, ResNet):
        raise ConfigError(f"MGN takes a ResNet apart, got the backbone {name}; choose resnet50_ibn or its like")
    return backbone

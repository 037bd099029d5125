"""Views of a batch, made on the device: random crops and colors of decoded canvases. Of others it imports only JAX.

What is drawn for a view depends on the key, the image's place in the global batch and the view's number alone, so it
does not depend on how the batch lies on the devices.

Shapes: B images, V views, H x W canvas, h x w view.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.common.bounds import SHARE, between, positive
from cion_jax.common.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from cion_jax.data import image_ops

_TRIES = 10
_NO_THRESHOLD = 256.0
# How many uniform numbers the parts of a view take.
_USES = {"area": _TRIES, "ratio": _TRIES, "place": 2, "order": 4, "factors": 4, "sigma": 1} | dict.fromkeys(
    ("flip", "jitter", "gray", "blur", "solarize"), 1
)


Side = Annotated[int, between(1, 4096)]
Strength = Annotated[float, between(0, 100)]


@dataclass(frozen=True)
class ViewSpec:
    """How one view is drawn.

    Attributes:
      height, width: of the view, in pixels.
      scale: least and greatest area of the crop, as a share of the image.
      ratio: least and greatest width / height of the crop.
      flip: probability of mirroring.
      jitter: probability of changing colors.
      brightness, contrast, saturation: strengths s, the factor is uniform in 1 - s .. 1 + s.
      hue: greatest turn of the color circle, 0 .. 0.5.
      gray: probability of removing colors.
      blur: probability of a Gaussian blur.
      sigma: least and greatest standard deviation of the blur, in pixels.
      solarize: probability of inverting bright levels.
      threshold: least level that is inverted, 0 .. 255.
    """

    height: Side = 256
    width: Side = 128
    scale: Annotated[tuple[float, float], positive(1)] = (0.8, 1.0)
    ratio: Annotated[tuple[float, float], positive(1000)] = (0.4, 0.6)
    flip: Annotated[float, SHARE] = 0.5
    jitter: Annotated[float, SHARE] = 0.8
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    saturation: Strength = 0.2
    hue: Annotated[float, between(0, 0.5)] = 0.1
    gray: Annotated[float, SHARE] = 0.2
    blur: Annotated[float, SHARE] = 1.0
    sigma: Annotated[tuple[float, float], positive(100)] = (0.1, 2.0)
    solarize: Annotated[float, SHARE] = 0.0
    threshold: Annotated[int, between(0, 255)] = 128

    def __post_init__(self) -> None:
        """Raises ValueError where a range does not rise."""
        for name in ("scale", "ratio", "sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is a rising pair of numbers, got {getattr(self, name)}")


@dataclass(frozen=True)
class ViewsConfig:
    """The views of an image. Defaults: the paper's.

    Attributes:
      global_1, global_2: large views, which the teacher sees too.
      local: small views, which only the student sees.
      local_views: how many of these, 0 or more.
    """

    global_1: ViewSpec = ViewSpec()
    global_2: ViewSpec = ViewSpec(blur=0.1, solarize=0.2)
    local: ViewSpec = ViewSpec(height=128, width=64, scale=(0.05, 0.8), blur=0.5)
    local_views: Annotated[int, between(0, 1000)] = 8

    def __post_init__(self) -> None:
        """Raises ValueError where the views cannot be one batch."""
        first, second = self.globals
        if (first.height, first.width) != (second.height, second.width):
            raise ValueError(
                f"both global views must have one size, got {first.height} x {first.width} and "
                f"{second.height} x {second.width}"
            )

    @property
    def globals(self) -> tuple[ViewSpec, ...]:
        """Of the views 0 and 1."""
        return self.global_1, self.global_2

    @property
    def locals(self) -> tuple[ViewSpec, ...]:
        """Of the views from 2 on."""
        return (self.local,) * self.local_views


class ViewParams(NamedTuple):
    """What is drawn for every view; leading shape [B, V].

    Attributes:
      box: [B, V, 4] int32 top, left, height, width on the image.
      flip: bool.
      jitter: bool; `order` and `factors` have no effect where it is False.
      order: [B, V, 4] int32, a permutation of the operations of `image_ops.jitter`.
      factors: [B, V, 4] float32, indexed by operation.
      gray: bool.
      sigma: float32 pixels, 0 for no blur.
      threshold: float32 level from which on levels are inverted, 256 for none.
    """

    box: Array
    flip: Array
    jitter: Array
    order: Array
    factors: Array
    gray: Array
    sigma: Array
    threshold: Array


@jax.named_scope("views")
def make_views(key: Array, image_BHWC: Array, size_B2: Array, config: ViewsConfig) -> tuple[Array, Array]:
    """Draws and renders all views of a batch.

    Args:
      key: of this step.
      image_BHWC: uint8 canvases.
      size_B2: int32 height and width of the image in the top left corner of its canvas.
      config: static.

    Returns:
      [B, 2, h, w, 3] global and [B, L, h, w, 3] local views, float32, normalized by IMAGENET_MEAN and IMAGENET_STD.
    """
    global_views, local_views = config.globals, config.locals
    global_params = draw(key, size_B2, global_views)
    global_BVHWC = render(image_BHWC, global_params, global_views)
    if not local_views:
        return global_BVHWC, jnp.zeros((len(image_BHWC), 0, config.local.height, config.local.width, 3))
    local_params = draw(key, size_B2, local_views, first_view=len(global_views))
    return global_BVHWC, render(image_BHWC, local_params, local_views)


def draw(key: Array, size_B2: Array, specs: tuple[ViewSpec, ...], first_view: int = 0) -> ViewParams:
    """Draws the parameters of one view per spec, numbered from `first_view` on."""
    keys_V = jax.vmap(lambda view: jax.random.fold_in(key, view))(first_view + jnp.arange(len(specs)))
    # All numbers in one draw: a draw for each use would be most of what XLA compiles.
    u_BVN = jax.vmap(lambda k: jax.random.uniform(k, (len(size_B2), sum(_USES.values()))), out_axes=1)(keys_V)
    u = dict(zip(_USES, jnp.split(u_BVN, list(itertools.accumulate(_USES.values()))[:-1], axis=-1), strict=True))
    spec_V = {f.name: jnp.array([getattr(s, f.name) for s in specs]) for f in dataclasses.fields(ViewSpec)}
    middle = jnp.array([1.0, 1.0, 1.0, 0.0])
    strength_V4 = jnp.stack([spec_V[n] for n in ("brightness", "contrast", "saturation", "hue")], -1)
    low_V4 = jnp.maximum(middle - strength_V4, jnp.array([0.0, 0.0, 0.0, -0.5]))

    def happens(name: str) -> Array:
        return u[name][..., 0] < spec_V[name]

    return ViewParams(
        box=_boxes(u, size_B2[:, None], spec_V),
        flip=happens("flip"),
        jitter=happens("jitter"),
        order=jnp.argsort(u["order"], axis=-1).astype(jnp.int32),
        factors=low_V4 + (middle + strength_V4 - low_V4) * u["factors"],
        gray=happens("gray"),
        sigma=jnp.where(happens("blur"), _within(spec_V["sigma"], u["sigma"])[..., 0], 0.0),
        threshold=jnp.where(happens("solarize"), spec_V["threshold"].astype(jnp.float32), _NO_THRESHOLD),
    )


def render(image_BHWC: Array, params: ViewParams, specs: tuple[ViewSpec, ...]) -> Array:
    """Makes the views that `params` describe.

    Args:
      image_BHWC: uint8 canvases.
      params: leading shape [B, V].
      specs: V of one size; what none of them can draw is not computed.

    Returns:
      [B, V, h, w, 3] float32, normalized by IMAGENET_MEAN and IMAGENET_STD.
    """
    x = image_ops.resized_crop(image_BHWC, params.box, params.flip, (specs[0].height, specs[0].width))
    if any(spec.jitter for spec in specs):
        x = image_ops.jitter(x, params.order, params.factors, params.jitter)
    if any(spec.gray for spec in specs):
        x = image_ops.grayscale(x, params.gray)
    if any(spec.blur for spec in specs):
        x = image_ops.gaussian_blur(x, params.sigma, max(spec.sigma[1] for spec in specs))
    if any(spec.solarize for spec in specs):
        x = image_ops.solarize(x, params.threshold)
    return (jnp.moveaxis(x, -3, -1) / 255.0 - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_STD)


def _within(range_V2: Array, share: Array) -> Array:
    low, high = range_V2[:, :1], range_V2[:, 1:]
    return low + (high - low) * share


def _boxes(u: dict[str, Array], size: Array, spec_V: dict[str, Array]) -> Array:
    """torchvision's RandomResizedCrop: the first of ten tries that fits, else the largest central crop.

    `size` is [B, 1, 2], the result [B, V, 4] int32 top, left, height, width.
    """
    pixels = size.prod(-1)[..., None]
    area = pixels * _within(spec_V["scale"], u["area"])
    ratio = jnp.exp(_within(jnp.log(spec_V["ratio"]), u["ratio"]))
    tries = jnp.round(jnp.stack([jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)], -1))
    fits = ((tries > 0) & (tries <= size[:, :, None])).all(-1)
    first = jnp.argmax(fits, -1)[..., None, None]
    fitting, found = jnp.take_along_axis(tries, first, -2)[..., 0, :], fits.any(-1, keepdims=True)
    shape = jnp.where(found, fitting, _central_shape(size, spec_V["ratio"])).astype(jnp.int32)
    free = size - shape
    place = jnp.floor(u["place"] * (free + 1)).astype(jnp.int32)
    return jnp.concatenate([jnp.where(found, place, free // 2), shape], -1)


def _central_shape(size: Array, ratio_V2: Array) -> Array:
    """Height and width of the largest crop whose ratio is allowed."""
    height, width = jnp.moveaxis(size.astype(jnp.float32), -1, 0)
    height = jnp.minimum(height, jnp.round(width / ratio_V2[:, 0]))
    return jnp.stack([height, jnp.minimum(width, jnp.round(height * ratio_V2[:, 1]))], -1)

"""Training images of fine-tuning and of cluster contrast, made on the device: resize, flip, pad and crop, erase.

Imports only JAX.

What is drawn depends on the key and the image's place in the global batch alone, so it does not depend on how the batch
lies on the devices.

Shapes: B images, H x W canvas, h x w result, N tries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.common.bounds import SHARE, between, positive
from cion_jax.common.preprocessing import IMAGENET_MEAN as MEAN
from cion_jax.common.preprocessing import IMAGENET_STD as STD
from cion_jax.data import image_ops


@dataclass(frozen=True)
class EraseSpec:
    """Random erasing (arXiv 1708.04896). Defaults: timm's.

    Attributes:
      probability: of erasing a rectangle.
      area: least and greatest share of the image.
      ratio: least and greatest height / width.
      even: what is uniform between these, the ratio itself or its logarithm (`log`).
      tries: how often to draw until a rectangle is smaller than the image in both directions; then nothing is erased.
      fill: `noise`, a standard normal number for every normalized value; `black`, level 0 before normalization; or
        `imagenet_mean`, ImageNet's mean in place of normalized values, which is a light gray where these are -1 .. 1.
    """

    probability: Annotated[float, SHARE] = 0.5
    area: Annotated[tuple[float, float], positive(1)] = (0.02, 1 / 3)
    ratio: Annotated[tuple[float, float], positive(1000)] = (0.3, 1 / 0.3)
    even: Literal["log", "ratio"] = "log"
    tries: Annotated[int, between(1, 1000)] = 10
    fill: Literal["noise", "black", "imagenet_mean"] = "noise"

    def __post_init__(self) -> None:
        """Raises ValueError where a range does not rise."""
        for name in ("area", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is a rising pair of numbers, got {(low, high)}")


@dataclass(frozen=True)
class CropSpec:
    """How a training image is made. Defaults: TransReID's.

    Attributes:
      height, width: of the result, in pixels.
      flip: probability of mirroring.
      pad: black pixels around the resized image, out of which height x width pixels are cropped.
      erase: random erasing.
      mean, std: by which values in 0 .. 1 are normalized, per channel.
    """

    height: Annotated[int, between(1, 4096)] = 256
    width: Annotated[int, between(1, 4096)] = 128
    flip: Annotated[float, SHARE] = 0.5
    pad: Annotated[int, between(0, 1024)] = 10
    erase: EraseSpec = EraseSpec()
    mean: Annotated[tuple[float, float, float], between(-1000, 1000)] = (0.5, 0.5, 0.5)
    std: Annotated[tuple[float, float, float], positive(1000)] = (0.5, 0.5, 0.5)


TRANSREID = CropSpec()
CLUSTER = CropSpec(erase=EraseSpec(0.5, (0.02, 0.4), even="ratio", tries=100, fill="imagenet_mean"))
MGN = CropSpec(384, 128, erase=EraseSpec(0.5, (0.02, 0.4), even="ratio", tries=100, fill="black"), mean=MEAN, std=STD)


class CropParams(NamedTuple):
    """What is drawn for every image.

    Attributes:
      flip: [B] bool.
      corner: [B, 2] int32 top, left of the crop on the padded image, 0 .. 2 pad.
      erase: [B, 4] int32 top, left, height, width of the erased rectangle on the result; height 0 for none.
    """

    flip: Array
    corner: Array
    erase: Array


@jax.named_scope("views")
def make_crops(key: Array, image_BHWC: Array, size_B2: Array, spec: CropSpec) -> Array:
    """Draws and renders one training image of every image.

    Args:
      key: of this step.
      image_BHWC: uint8 canvases.
      size_B2: int32 height and width of the image in the top left corner of its canvas.
      spec: static.

    Returns:
      [B, h, w, 3] float32, normalized.
    """
    drawn, noise = jax.random.split(key)
    return render(image_BHWC, size_B2, draw(drawn, len(image_BHWC), spec), noise, spec)


def draw(key: Array, count: int, spec: CropSpec) -> CropParams:
    """Draws the parameters of `count` images."""
    tries = spec.erase.tries
    u_BN = jax.random.uniform(key, (count, 6 + 2 * tries))
    corner = jnp.floor(u_BN[:, 1:3] * (2 * spec.pad + 1)).astype(jnp.int32)
    boxes = _boxes(u_BN[:, 6:].reshape(count, tries, 2), u_BN[:, 4:6], spec)
    erased = (u_BN[:, 3] < spec.erase.probability)[:, None]
    return CropParams(u_BN[:, 0] < spec.flip, corner, jnp.where(erased, boxes, 0))


def render(image_BHWC: Array, size_B2: Array, params: CropParams, key: Array, spec: CropSpec) -> Array:
    """Makes the images that `params` describe.

    Args:
      image_BHWC: uint8 canvases.
      size_B2: of the images on them.
      params: of as many images.
      key: of the noise.
      spec: static.

    Returns:
      [B, h, w, 3] float32, normalized.
    """
    levels = crop(resize(image_BHWC, size_B2, params.flip, spec), params.corner, spec.pad)
    erased = _inside(params.erase, spec.height, spec.width)
    if spec.erase.fill == "black":
        return normalize(jnp.where(erased, 0.0, levels), spec)
    filling = jnp.array(MEAN) if spec.erase.fill == "imagenet_mean" else jax.random.normal(key, levels.shape)
    return jnp.where(erased, filling, normalize(levels, spec))


def resize(image_BHWC: Array, size_B2: Array, flip_B: Array, spec: CropSpec) -> Array:
    """Images on canvases -> [B, h, w, 3] whole levels 0 .. 255: bicubic, antialiased, perhaps mirrored."""
    box_B4 = jnp.concatenate([jnp.zeros_like(size_B2), size_B2], -1)
    planes = image_ops.resized_crop(image_BHWC, box_B4[:, None], flip_B[:, None], (spec.height, spec.width))
    return jnp.moveaxis(planes[:, 0], 1, -1)


def crop(x_BHWC: Array, corner_B2: Array, pad: int) -> Array:
    """Pads images by black and cuts their own size out again, from `corner` on."""
    padded = jnp.pad(x_BHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cut = jax.vmap(lambda x, corner: jax.lax.dynamic_slice(x, (corner[0], corner[1], 0), x_BHWC.shape[1:]))
    return cut(padded, corner_B2)


def normalize(levels: Array, spec: CropSpec) -> Array:
    """Levels 0 .. 255, channels last -> normalized values."""
    return (levels / 255.0 - jnp.array(spec.mean)) / jnp.array(spec.std)


def _boxes(u_BN2: Array, place_B2: Array, spec: CropSpec) -> Array:
    """[B, 4] top, left, height, width: the first of N tries that fits, else zeros."""
    erase, size = spec.erase, jnp.array([spec.height, spec.width])
    log = erase.even == "log"
    low, high = (math.log(r) if log else r for r in erase.ratio)
    ratio = low + (high - low) * u_BN2[..., 1]
    ratio = jnp.exp(ratio) if log else ratio
    area = spec.height * spec.width * (erase.area[0] + (erase.area[1] - erase.area[0]) * u_BN2[..., 0])
    shape_BN2 = jnp.round(jnp.sqrt(jnp.stack([area * ratio, area / ratio], -1)))
    fits_BN = (shape_BN2 < size).all(-1)
    first = jnp.argmax(fits_BN, 1)[:, None, None]
    shape = jnp.take_along_axis(shape_BN2, first, 1)[:, 0].astype(jnp.int32)
    corner = jnp.floor(place_B2 * (size - shape + 1)).astype(jnp.int32)
    return jnp.where(fits_BN.any(1, keepdims=True), jnp.concatenate([corner, shape], -1), 0)


def _inside(box_B4: Array, height: int, width: int) -> Array:
    """[B, h, w, 1] bool."""
    top, left, tall, wide = (v[:, None, None, None] for v in box_B4.T)
    row, column = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
    return (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)

"""Image operations on the device, level by level what PIL and torchvision do to 8-bit images. Imports only JAX.

Images are planar, `[..., 3, h, w]`, float32 holding whole levels 0 .. 255: each operation ends in the rounding of its
8-bit original, so that a chain of them stays within a level of the original chain. One image's parameters have the
leading shape `[...]`. Sources: Pillow's Resample.c, Blend.c, Convert.c and BoxBlur.c, torchvision's functional_pil.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_PASSES = 3  # box blurs that approximate a Gaussian
_HUE_NUDGE = 0.5 / (6 * 255)  # half of what a fraction with such a denominator is from a whole number
_SATURATION_NUDGE = 0.5 / 255


def resize_weights(start: Array, length: Array, flip: Array, out: int, size: int) -> Array:
    """Weights of an antialiased bicubic resize (a = -0.5) of one axis, cropped and perhaps mirrored.

    Args:
      start, length: [...] int, the crop's first pixel and its number of pixels on an axis of `size` pixels.
      flip: [...] bool, mirrors the result.
      out: pixels of the result.
      size: pixels of the whole axis.

    Returns:
      [..., out, size] float32; every row sums to 1 and is 0 outside the crop.
    """
    start, length = (v[..., None, None].astype(jnp.float32) for v in (start, length))
    o = jnp.arange(out, dtype=jnp.float32)[:, None]
    o = jnp.where(flip[..., None, None], out - 1 - o, o)
    i = jnp.arange(size, dtype=jnp.float32) - start
    scale = length / out
    weights = _cubic((i + 0.5 - (o + 0.5) * scale) / jnp.maximum(scale, 1.0))
    weights = jnp.where((i >= 0) & (i < length), weights, 0.0)
    # Computed before they are summed and divided: XLA takes sum and division for a softmax on a GPU and, with all that
    # comes before in it, tries tilings for minutes.
    weights = lax.optimization_barrier(weights)
    return weights / weights.sum(-1, keepdims=True)


def resized_crop(canvas_BHWC: Array, box_BV4: Array, flip_BV: Array, out: tuple[int, int]) -> Array:
    """Crops, resizes and mirrors V views of every image as two small matrix products.

    Args:
      canvas_BHWC: uint8.
      box_BV4: int, top, left, height, width of every view's crop on its canvas.
      flip_BV: bool, mirrors left and right.
      out: height and width of a view.

    Returns:
      [B, V, 3, h, w].
    """
    planes_BCHW = jnp.moveaxis(canvas_BHWC, -1, 1).astype(jnp.float32)
    top, left, height, width = jnp.moveaxis(box_BV4, -1, 0)
    rows = resize_weights(top, height, jnp.zeros_like(flip_BV), out[0], canvas_BHWC.shape[1])
    columns = resize_weights(left, width, flip_BV, out[1], canvas_BHWC.shape[2])
    # Along the width first and rounded in between, like Pillow up to 12; Pillow 13 begins with the height where that
    # shrinks more, which moves a quarter of the levels by one. Weights need float32 on accelerators too.
    x = jnp.einsum("bcHW,bvwW->bvcHw", planes_BCHW, columns, precision=lax.Precision.HIGHEST)
    return _levels(jnp.einsum("bvhH,bvcHw->bvchw", rows, _levels(x), precision=lax.Precision.HIGHEST))


def luma(x: Array) -> Array:
    """Grey levels [..., 1, h, w] of a color image: ITU-R 601-2 in 16-bit fixed point, exact in float32."""
    weights = jnp.array([19595.0, 38470.0, 7471.0], x.dtype)[:, None, None]
    return jnp.floor(((x * weights).sum(-3, keepdims=True) + 32768.0) / 65536.0)


def grayscale(x: Array, apply: Array) -> Array:
    """Replaces colors by grey levels where `apply` [...] holds."""
    return jnp.where(_pixelwise(apply), luma(x), x)


def jitter(x: Array, order: Array, factors: Array, apply: Array) -> Array:
    """Brightness, contrast, saturation and hue, in any order.

    Only hue is costly. So it is done once, between what comes before and what comes after it in the order; what does
    not belong there gets the factor 1, which changes nothing.

    Args:
      x: [..., 3, h, w].
      order: [..., 4] int, a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE.
      factors: [..., 4] indexed by these constants; hue is a shift in turns, -0.5 .. 0.5.
      apply: [...] bool, leaves the image as it is where it does not hold.
    """
    factor_at = jnp.take_along_axis(factors, order, -1)
    place = jnp.arange(4)
    hue_place = jnp.argmax(order == HUE, -1, keepdims=True)
    before = jnp.where((place < hue_place) & apply[..., None], factor_at, 1.0)
    after = jnp.where((place > hue_place) & apply[..., None], factor_at, 1.0)
    for k in range(0, 3):
        x = blend(x, order[..., k], before[..., k])
    x = jnp.where(_pixelwise(apply), shift_hue(x, factors[..., HUE]), x)
    for k in range(1, 4):
        x = blend(x, order[..., k], after[..., k])
    return x


def blend(x: Array, kind: Array, factor: Array) -> Array:
    """Brightness, contrast or saturation: moves an image away from black, its mean grey or its grey levels.

    Args:
      x: [..., 3, h, w].
      kind: [...] int, BRIGHTNESS, CONTRAST or SATURATION.
      factor: [...], 0 gives what is moved away from, 1 the image itself.
    """
    grey, kind = luma(x), _pixelwise(kind)
    mean = jnp.floor(grey.mean((-2, -1), keepdims=True) + 0.5)
    base = jnp.where(kind == SATURATION, grey, jnp.where(kind == CONTRAST, mean, 0.0))
    return jnp.floor(jnp.clip(base + _pixelwise(factor) * (x - base), 0.0, 255.0))


def shift_hue(x: Array, turns: Array) -> Array:
    """Turns hues by a share of the color circle, by way of 8-bit HSV.

    Hue and saturation are floors of fractions of whole numbers up to 255, many of which are whole. A GPU's division may
    be a little short of these, so that a level in thirty would be another than a CPU's: a nudge, larger than any error
    and smaller than the way from another fraction to a whole number, makes both floors exact.

    Args:
      x: [..., 3, h, w].
      turns: [...], -0.5 .. 0.5.
    """
    high, low = x.max(-3), x.min(-3)
    chroma = high - low
    r, g, b = ((high - c) / jnp.maximum(chroma, 1.0) for c in jnp.moveaxis(x, -3, 0))
    sector = jnp.where(r == 0, b - g, jnp.where(g == 0, 2.0 + r - b, 4.0 + g - r)) / 6.0
    hue = jnp.floor((sector - jnp.floor(sector)) * 255.0 + _HUE_NUDGE)
    saturation = jnp.floor(chroma / jnp.maximum(high, 1.0) * 255.0 + _SATURATION_NUDGE) / 255.0
    hue = jnp.mod(hue + jnp.trunc(turns * 255.0)[..., None, None], 256.0) * (6.0 / 255.0)
    # Distance of each channel's sector from the hue: 0 where the channel is full, 1 where it is lowest.
    k = jnp.mod(jnp.array([5.0, 3.0, 1.0])[:, None, None] + hue[..., None, :, :], 6.0)
    drop = jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)
    high, saturation = high[..., None, :, :], saturation[..., None, :, :]
    return jnp.floor(high * (1.0 - saturation * drop) + 0.5)


def gaussian_blur(x: Array, sigma: Array, max_sigma: float) -> Array:
    """Gaussian blur as three box blurs of fractional radius along either axis.

    Args:
      x: [..., 3, h, w].
      sigma: [...] in pixels, 0 .. max_sigma; 0 leaves the image as it is.
      max_sigma: bounds the width of the boxes.
    """
    reach = math.floor(_box_radius_bound(max_sigma)) + 1
    offsets = range(-reach, reach + 1)
    radius = _box_radius(sigma)
    taps = [_pixelwise(jnp.clip(radius + 1.0 - abs(d), 0.0, 1.0) / (2.0 * radius + 1.0)) for d in offsets]

    def blur_rows(_: None, x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)], mode="edge")
        shifted = (padded[..., reach + d : reach + d + x.shape[-1]] for d in offsets)
        terms = (tap * s for tap, s in zip(taps, shifted, strict=True))
        return _levels(sum(terms, jnp.zeros_like(x)))

    # A loop, since the compiler would otherwise fuse the passes and compute the first one many times over.
    x = lax.fori_loop(0, _PASSES, blur_rows, x)
    return lax.fori_loop(0, _PASSES, blur_rows, x.swapaxes(-1, -2)).swapaxes(-1, -2)


def solarize(x: Array, threshold: Array) -> Array:
    """Inverts levels of at least `threshold` [...]; 256 leaves the image as it is."""
    return jnp.where(x >= _pixelwise(threshold), 255.0 - x, x)


def _cubic(x: Array) -> Array:
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


def _box_radius(sigma: Array) -> Array:
    """Radius of the box whose threefold use has the variance sigma^2 (Gwosdek et al. 2011, extended box filter)."""
    variance = sigma * sigma / _PASSES
    whole = jnp.floor((jnp.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    excess = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance)
    return whole + excess / (6.0 * (variance - (whole + 1.0) ** 2))


def _box_radius_bound(sigma: float) -> float:
    return (math.sqrt(12.0 * sigma * sigma / _PASSES + 1.0) - 1.0) / 2.0


def _levels(x: Array) -> Array:
    return jnp.clip(jnp.floor(x + 0.5), 0.0, 255.0)


def _pixelwise(v: Array) -> Array:
    return v[..., None, None, None]

"""Position embeddings of another grid of patches than the model's."""

from __future__ import annotations

import math

import numpy as np

from cion_jax.weights.torch_names import WeightsError

POSITIONS = "pos_embed"  # their name in every backbone here that has any
PATCH = 16  # pixels, of every backbone here that has positions
# Grids (height, width) of overlapping patches, 12 pixels apart, of 256x128 and 384x128, as TransReID has them.
_OVERLAPPING = {210: (21, 10), 310: (31, 10)}


def grid_of(count: int, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the grid that has `count` patches.

    Args:
      count: of patches, without the class token.
      size: (height, width) of the images that are wanted. A grid of their shape comes first, then a square, then
        people twice and three times as high as wide.

    Raises:
      WeightsError: no such grid has this many patches.
    """
    if count in _OVERLAPPING:
        return _OVERLAPPING[count]
    for height, width in (size, (1, 1), (2, 1), (3, 1)):
        height, width = height // math.gcd(height, width), width // math.gcd(height, width)
        times = math.isqrt(count // (height * width))
        if times and times * times * height * width == count:
            return times * height, times * width
    raise WeightsError(
        f"the position embeddings are of {count} patches, which are no grid of the shape {size[0]}x{size[1]}, 1:1, 2:1 "
        "or 3:1; resize them before"
    )


def shape_at(like: tuple[int, ...], size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the positions of images of (height, width), for a model whose positions have the shape `like`."""
    height, width = size[0] // PATCH, size[1] // PATCH
    return (1, 1 + height * width, like[2]) if len(like) == 3 else (1, height, width, like[3])


def resize(positions: np.ndarray, like: tuple[int, ...], size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Position embeddings for another grid: bilinear, half-pixel centers, no antialiasing; a class token stays.

    Args:
      positions: [1, 1 + N, C] with a class token, or [1, h, w, C].
      like: shape that the model has; of N patches at 256x128.
      size: (height, width) of the images that are wanted.

    Returns:
      Positions of the grid that images of this size have, where the given ones have that; else of the model's. And
      what was done, for people; "" for nothing.

    Raises:
      WeightsError: the grid cannot be told.
    """
    if positions.shape in (like, shape_at(like, size)):
        return positions, ""
    if positions.ndim == 3:
        grid = grid_of(positions.shape[1] - 1, size)
        table = positions[:, 1:].reshape(1, *grid, -1)
    else:
        grid, table = positions.shape[1:3], positions
    new = grid_of(like[1] - 1, (2, 1)) if positions.ndim == 3 else like[1:3]
    table = np.einsum("Hh,Ww,bhwc->bHWc", _bilinear(grid[0], new[0]), _bilinear(grid[1], new[1]), table)
    said = f"resized from {grid[0]}x{grid[1]} to {new[0]}x{new[1]} patches"
    if positions.ndim == 3:
        table = np.concatenate([positions[:, :1], table.reshape(1, math.prod(new), -1)], axis=1)
    return table.astype(positions.dtype), said


def _bilinear(size: int, new_size: int) -> np.ndarray:
    """[new_size, size] weights; samples beyond the border repeat it."""
    at = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    return np.stack([np.interp(at, np.arange(size), one) for one in np.eye(size)], axis=1)

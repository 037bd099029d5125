"""What all embedders share: batches, checks, resizing, length 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from cion_jax.common.errors import UserError
from cion_jax.neighbors import cosine


class EmbedderError(UserError):
    """There is no such embedder, or it cannot work on what it was given."""


def embed(
    crops: Iterable[np.ndarray],
    batch_size: int,
    width: int,
    forward: Callable[[list[np.ndarray]], np.ndarray],
) -> np.ndarray:
    """Runs `forward` over batches of crops.

    Args:
      crops: [h, w, 3] uint8 RGB, of any sizes.
      batch_size: the most crops that `forward` gets at a time.
      width: d, the number of features.
      forward: crops -> [n, d].

    Returns:
      [n, d] float32, L2-normalized; rows that are not finite or all zero stay so, for the caller to set aside.

    Raises:
      EmbedderError: a crop that cannot be used; its position is named.
    """
    done = [np.zeros((0, width), np.float32)]
    for batch in _batches(crops, batch_size):
        done.append(cosine.unit(forward(batch), np.float32, 0))
    return np.concatenate(done)


def _batches(crops: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    checked = (_checked(crop, i) for i, crop in enumerate(crops))
    while batch := list(itertools.islice(checked, size)):
        yield batch


def _checked(crop: np.ndarray, position: int) -> np.ndarray:
    if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or not crop.size:
        raise EmbedderError(
            f"crop {position} is {crop.dtype} {list(crop.shape)}, expected uint8 [h, w, 3] with h, w > 0; "
            "set empty boxes aside before embedding"
        )
    return crop

"""What all embedders share: batches, checks, resizing, length 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np


class EmbedderError(ValueError):
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
      forward: crops -> [n, d], finite and not zero.

    Returns:
      [n, d] float32, L2-normalised.

    Raises:
      EmbedderError: a crop or a feature that cannot be used; its position is named.
    """
    done, rows = [np.zeros((0, width), np.float32)], 0
    for batch in _batches(crops, batch_size):
        features = np.asarray(forward(batch), np.float32)
        length = np.linalg.norm(features, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(length[:, 0]) | (length[:, 0] == 0))
        if bad.size:
            raise EmbedderError(
                f"crop {rows + bad[0]} got features of length {length[bad[0], 0]}, expected finite ones that are "
                "not all zero; the extractor's weights or its input size are broken"
            )
        done.append(features / length)
        rows += len(batch)
    return np.concatenate(done)


def resize(crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """Stretches to height x width: by area where both sides shrink (no aliasing), else bilinear."""
    shrinks = crop.shape[0] >= height and crop.shape[1] >= width
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


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

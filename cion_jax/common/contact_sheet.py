"""Contact sheets: pictures of people side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from cion_jax.common import images
from cion_jax.common.files import finished

HEIGHT, WIDTH = 128, 64  # pixels of one crop
DOWN, ACROSS = 6, 24  # crops of a tracklet, tracklets
_GAP, _LABEL = 4, 16  # pixels between crops; above them
_INK, _MARK, _DAMAGED = (0, 0, 0), (220, 30, 30), 200

Crops = Sequence[tuple[int, bool]]
"""Numbers of crops, and whether they are marked."""


def sheet(tracklets: Sequence[Crops], jpegs_of: Callable[[list[int]], list[bytes | None]]) -> np.ndarray:
    """Draws tracklets as columns, numbered from 1, of each at most `DOWN` crops, evenly spread.

    Args:
      tracklets: at least one; of more than `ACROSS` the first are drawn. What is marked is always drawn.
      jpegs_of: JPEG bytes of crops by number, None where one is damaged.

    Returns:
      [h, w, 3] uint8 RGB.
    """
    order = sorted(range(len(tracklets)), key=lambda i: (not any(mark for _, mark in tracklets[i]), i))
    columns = {i: _thinned(tracklets[i]) for i in sorted(order[:ACROSS])}
    rows = max(map(len, columns.values()))
    shape = (_LABEL + rows * (HEIGHT + _GAP) + _GAP, len(columns) * (WIDTH + _GAP) + _GAP, 3)
    sheet_HWC = np.full(shape, 255, np.uint8)
    for column, (number, crops) in enumerate(columns.items()):
        left = _GAP + column * (WIDTH + _GAP)
        cv2.putText(sheet_HWC, str(number + 1), (left, _LABEL - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK)
        for row, (jpeg, (_, marked)) in enumerate(zip(jpegs_of([n for n, _ in crops]), crops, strict=True)):
            top = _LABEL + row * (HEIGHT + _GAP)
            if marked:
                sheet_HWC[top - 3 : top + HEIGHT + 3, left - 3 : left + WIDTH + 3] = _MARK
            sheet_HWC[top : top + HEIGHT, left : left + WIDTH] = _crop(jpeg)
    return sheet_HWC


def save(path: Path, picture_HWC: np.ndarray) -> None:
    """Writes [h, w, 3] uint8 RGB as a PNG, complete or not at all."""
    _, data = cv2.imencode(".png", cv2.cvtColor(picture_HWC, cv2.COLOR_RGB2BGR))
    with finished(path) as part:
        part.write_bytes(data.tobytes())


def _thinned(crops: Crops) -> list[tuple[int, bool]]:
    at = set(np.linspace(0, len(crops) - 1, min(DOWN, len(crops))).round().astype(int).tolist())
    marked = {i for i, (_, mark) in enumerate(crops) if mark}
    return [crops[i] for i in sorted([*marked, *sorted(at - marked)][:DOWN])]


def _crop(jpeg: bytes | None) -> np.ndarray:
    """[HEIGHT, WIDTH, 3] uint8; grey where the picture is damaged."""
    try:
        crop = images.decode(jpeg or b"")
    except images.PictureError:
        return np.full((HEIGHT, WIDTH, 3), _DAMAGED, np.uint8)
    scale = min(HEIGHT / crop.shape[0], WIDTH / crop.shape[1])
    width, height = (max(1, round(side * scale)) for side in crop.shape[1::-1])
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    canvas[:height, :width] = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    return canvas

"""What makes features of images, whatever is inside; and one that looks at mirror images as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np


class Extractor(Protocol):
    """A frozen network.

    Attributes:
      name: of the model.
      step: training steps behind it, 0 if untrained, None where that is not known.
      size: (height, width) of its input in pixels.
      features: d, width of its output.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def step(self) -> int | None:
        """See above."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """See above."""
        ...

    @property
    def features(self) -> int:
        """See above."""
        ...

    def __call__(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB images of any sizes -> [N, d] float32, not normalized."""
        ...

    def digest(self) -> str:
        """SHA-256 of what determines the features of an image."""
        ...


class Flipped:
    """An extractor whose features are the mean of those of an image and of its mirror image."""

    def __init__(self, plain: Extractor):
        """Looks like the plain one but for what it computes."""
        self.name, self.step, self.size, self.features = plain.name, plain.step, plain.size, plain.features
        self._plain = plain

    def __call__(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """[h, w, 3] uint8 RGB images of any sizes -> [N, d] float32, not normalized."""
        both = self._plain(view for image in images for view in (image, np.ascontiguousarray(image[:, ::-1])))
        return both.reshape(-1, 2, self.features).mean(axis=1)

    def digest(self) -> str:
        """That of the plain one: its features are the same but for noise."""
        return self._plain.digest()

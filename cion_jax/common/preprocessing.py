"""How an image becomes the input of a network. Imports nothing of the project."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]
# Mean and standard deviation of ImageNet's RGB values in 0 .. 1, as most published backbones are trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Of a network's input; travels with its weights.

    Attributes:
      size: (height, width) in pixels that images are resized to.
      mean, std: RGB values in 0 .. 1; the input is (pixel / 255 - mean) / std.
    """

    size: tuple[int, int] = (256, 128)
    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD

    @classmethod
    def of(cls, fields: dict) -> Preprocessing:
        """The inverse of `dataclasses.asdict` after a journey through JSON."""
        return cls(**{name: tuple(values) for name, values in fields.items()})

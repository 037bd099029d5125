"""All crops of a source, a video at a time: an input of `cion_jax.embed`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cion_jax.common.typed_config import freeze
from cion_jax.data.image_parts import Part, Read
from data_prep import doctor, sources
from data_prep.config import Config
from data_prep.pipeline import inputs, per_video
from data_prep.types import Image, Reject, Source, SourceError


def parts(name: str, root: Path, settings: Mapping[str, Any]) -> list[Part]:
    """The crops of every video of an input; what is set aside is said on stderr.

    Args:
      name: of the source.
      root: its input.
      settings: what is not to be at its default, see `Config`.

    Raises:
      UserError: no such source or setting, an input that cannot be read beyond doubt or that holds no crop.
    """
    config = freeze(Config, dict(settings))
    source = sources.open(name, root, **sources.options(name, config))
    doctor.check(source)
    found, rejects = [], list[Reject]()
    for video in source.videos():
        images, lost, stamp = inputs.read(source, video, "", config)
        images = per_video.distinct(images, lost)
        rejects += lost
        if images:
            found.append(Part(len(images), stamp, _reader(source, images)))
    for line in doctor.set_aside([*source.rejected, *rejects]):
        print(f"set aside: {line}", file=sys.stderr)
    if not found:
        raise SourceError(f"no crop in {root}; expected {sources.layout(name)}")
    return found


def _reader(source: Source, images: Sequence[Image]) -> Callable[[], Read]:
    place = {image.key: i for i, image in enumerate(images)}

    def read() -> Read:
        for image, crop in source.crops(images):
            yield place[image.key], image.key, f"{crop.where}: {crop.detail}" if isinstance(crop, Reject) else crop

    return read

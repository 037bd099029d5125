"""What stands behind the file of a network: `FILE?channels=bgr&mean=0&std=1&size=384x128`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cion_jax.common.errors import UserError
from cion_jax.common.paths import local_path
from cion_jax.common.preprocessing import IMAGENET_MEAN as MEAN
from cion_jax.common.preprocessing import IMAGENET_STD as STD
from cion_jax.common.printable import printable, some
from cion_jax.common.typed_config import unknown


class ImageNetworkError(UserError):
    """A network in a file cannot be fed with images as it was asked to."""


@dataclass(frozen=True)
class Options:
    """How crops become the input of a network; what is None is as its file says, or as most networks have it.

    Attributes:
      channels: order of the colors, "rgb" or "bgr".
      range: value of the brightest pixel, 1 or 255, before `mean` is taken off.
      mean, std: one number per channel, in the order of `channels` and in units of `range`.
      size: (height, width), for a file that leaves them free.
      output: name of the output that holds the features, for a file that has several.
    """

    channels: str | None = None
    range: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: tuple[int, int] | None = None
    output: str | None = None

    @property
    def scale(self) -> float:
        """`range` in force."""
        return self.range or 1.0

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation in force, RGB or BGR as `channels` says."""
        turn = -1 if self.channels == "bgr" else 1
        usual = (tuple(self.scale * value for value in each[::turn]) for each in (MEAN, STD))
        mean, std = usual
        return self.mean or mean, self.std or std


def parse(argument: str, flag: str) -> tuple[Path, Options]:
    """Parts `FILE?name=value&name=value`; `flag` is how FILE is given, for messages, like `--embedder=onnx:FILE`.

    Raises:
      ImageNetworkError: no such file, option or value; what is expected is said.
    """
    name, _, text = argument.partition("?")
    file = local_path(name, f"{flag}, FILE")
    if not file.is_file():
        raise ImageNetworkError(f"no extractor at {file}; give {flag} with an existing file")
    given: dict[str, Any] = {}
    for pair in filter(None, text.split("&")):
        option, _, value = pair.partition("=")
        if option not in _PARSERS:
            raise ImageNetworkError(unknown(f"option {option!r} of an extractor", option, _PARSERS))
        given[option] = _PARSERS[option](option, value)
    return file, _checked(Options(**given))


def output_of(file: Path, names: Sequence[str], options: Options) -> int:
    """Which of a network's outputs holds the features; raises ImageNetworkError where that is not said or not there."""
    if options.output is None and len(names) == 1:
        return 0
    if options.output not in names:
        got = "several outputs" if options.output is None else f"no output {printable(options.output)}"
        raise ImageNetworkError(f"{file} has {got}; give the one with the features: ?output= one of {some(names)}")
    return list(names).index(str(options.output))


def _checked(options: Options) -> Options:
    mean, std = options.normalization
    if min(std) <= 0:
        raise ImageNetworkError(f"option std={std} has to be above 0")
    if options.scale == 1 and max(map(abs, (*mean, *std))) > 1:
        raise ImageNetworkError(
            f"mean {mean} and std {std} are of pixels in 0 .. 1; where they are of pixels in 0 .. 255, add range=255"
        )
    return options


def _channels(option: str, value: str) -> str:
    if value.lower() not in ("rgb", "bgr"):
        raise ImageNetworkError(f"option {option}={value!r}: expected rgb or bgr")
    return value.lower()


def _range(option: str, value: str) -> float:
    if value not in ("1", "255"):
        raise ImageNetworkError(f"option {option}={value!r}: expected 1 (pixels in 0 .. 1) or 255")
    return float(value)


def _per_channel(option: str, value: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(number) for number in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(abs(number) < 1e6 for number in numbers):
        raise ImageNetworkError(f"option {option}={value!r}: expected one number, or three with commas between them")
    return numbers * (3 // len(numbers))


def _size(option: str, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", value)
    if not match:
        raise ImageNetworkError(f"option {option}={value!r}: expected HEIGHTxWIDTH in pixels, like 256x128")
    return int(match[1]), int(match[2])


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "channels": _channels,
    "range": _range,
    "mean": _per_channel,
    "std": _per_channel,
    "size": _size,
    "output": lambda option, value: value,
}

"""Writes a backbone as one file for other tools, and a model card beside it.

    python -m cion_jax.export --checkpoint=WORKDIR --format=safetensors --output=FILE.safetensors

`--format` is one of safetensors (PyTorch's names: `load_state_dict(..., strict=True)`), flax (msgpack), stablehlo and
onnx (both: uint8 RGB pixels to features of length 1, any batch). The file is read again and compared with the backbone
before it gets its name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from cion_jax.common import cli
from cion_jax.common.errors import UserError
from cion_jax.common.files import replaceable
from cion_jax.common.finite import check_finite
from cion_jax.common.paths import local_path
from cion_jax.common.typed_config import ConfigError
from cion_jax.embed import define_overwrite, define_weights_flags
from cion_jax.exporting.card import card
from cion_jax.exporting.formats import FORMATS
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.load import load, weights_file


class ExportError(UserError):
    """What was written is not what was to be written."""


def export(backbone: Backbone, form: str, output: Path, overwrite: bool = False, **origin: str) -> float:
    """Writes `output` and its card `output`.md; both appear whole or not at all.

    Args:
      backbone: what to write.
      form: one of `FORMATS`.
      output: a file with the format's suffix.
      overwrite: whether it, and its card, may be there already.
      origin: `source`, `network` and `licence` for the card.

    Returns:
      Largest difference between the file's features and Flax's, in standard deviations of the latter; 0 for weights.

    Raises:
      UserError: the output exists, or has another suffix.
      ExportError: the file does not come back as what was written.
      NotFiniteError: the features of an image are NaN or infinite.
      NotInOnnx: an operation that the ONNX format lacks.
    """
    kind, beside = FORMATS[form], output.with_name(f"{output.name}.md")
    if output.suffix != kind.suffix:
        raise ConfigError(f"--output={output} must end in {kind.suffix}, as files of --format={form} do")
    read = weights_file(origin["source"])
    for file in (output, beside):
        replaceable(file, "--output", overwrite, read)
    check_finite(np.asarray(backbone.forward(np.full((1, *backbone.size, 3), 128, np.uint8))), ["a gray image"])
    with tempfile.TemporaryDirectory(prefix=".export", dir=output.parent) as unfinished:
        file = Path(unfinished) / output.name
        kind.write(file, backbone)
        error = kind.error(file, backbone)
        if not error <= kind.tolerance:
            raise ExportError(
                f"{backbone.name} as {form} differs from Flax by {error:.1e} standard deviations, at most "
                f"{kind.tolerance} was expected; nothing was written"
            )
        text = Path(unfinished) / beside.name
        text.write_text(card(file, kind, backbone, error=error, **origin))
        text.rename(beside)
        file.rename(output)
    return error


def main(_: Sequence[str]) -> None:
    """Loads, writes, says how far it is off."""
    args = flags.FLAGS
    backbone = load(args.checkpoint, args.network, args.ignore)
    output = local_path(args.output, "--output")
    origin = {"source": args.checkpoint, "network": args.network, "licence": args.licence}
    error = export(backbone, args.format, output, args.overwrite, **origin)
    print(f"{output}: {backbone.name}, largest difference {error:.1e}; card in {output}.md")


def define_flags() -> None:
    """Defines what the command takes."""
    define_weights_flags()
    flags.DEFINE_enum("format", None, tuple(FORMATS), "What to write.", required=True)
    flags.DEFINE_string("output", None, "The file to write.", required=True)
    flags.DEFINE_string("licence", "", "Licence of the weights, for the card.")
    define_overwrite()


def run_main() -> None:
    """The command `cion-export`."""
    define_flags()
    cli.run(main)


if __name__ == "__main__":
    run_main()

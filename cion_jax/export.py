"""Writes a backbone as one file for other tools, and a model card beside it; or as one folder that they all load.

    python -m cion_jax.export --checkpoint=WORKDIR --format=safetensors --output=FILE.safetensors
    python -m cion_jax.export --checkpoint=WORKDIR --format=folder --output=FOLDER [--push=hf://ORG/NAME]

`--format` is one of safetensors (PyTorch's names: `load_state_dict(..., strict=True)`), flax (msgpack), stablehlo and
onnx (both: uint8 RGB pixels to features of length 1, any batch), or folder (see `cion_jax.exporting.folder`). What was
written is read again and compared with the backbone before it gets its name. `--adapt=DATA` (see `cion_jax.embed`)
becomes the last layer of stablehlo and onnx, with the mean of the camera that `--camera` names, else with the mean over
all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from absl import flags

from cion_jax.common import checksums, cli
from cion_jax.common.errors import UserError
from cion_jax.common.files import replaceable, replaceable_folder
from cion_jax.common.finite import check_finite
from cion_jax.common.paths import local_path
from cion_jax.common.printable import some
from cion_jax.common.typed_config import ConfigError, unknown
from cion_jax.embed import adaptation_of_flags, define_adapt_flags, define_overwrite, define_weights_flags
from cion_jax.exporting import folder
from cion_jax.exporting.card import card, folder_card
from cion_jax.exporting.formats import FORMATS
from cion_jax.reid.adaptation import Adaptation
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.hub import check, push, repository_of
from cion_jax.weights.load import load, weights_file

FOLDER = "folder"  # the one format that is none of one file


class ExportError(UserError):
    """What was written is not what was to be written."""


def export(
    backbone: Backbone,
    form: str,
    output: Path,
    overwrite: bool = False,
    **origin: str,
) -> float:
    """Writes `output`, its card `output`.md and digests of both, `output`.sha256; each appears whole or not at all.

    Args:
      backbone: what to write.
      form: one of `FORMATS`.
      output: a file with the format's suffix.
      overwrite: whether it, and its card, may be there already.
      origin: `source`, `network`, `licence` and, of `adapted`, `adapted` for the card.

    Returns:
      Largest difference between the file's features and Flax's, in standard deviations of the latter; 0 for weights.

    Raises:
      UserError: the output exists, has another suffix, or is of a format without a place for an adaptation.
      ExportError: the file does not come back as what was written.
      NotFiniteError: the features of an image are NaN or infinite.
      NotInOnnx: an operation that the ONNX format lacks.
    """
    kind, beside = FORMATS[form], output.with_name(f"{output.name}.md")
    if output.suffix != kind.suffix:
        raise ConfigError(f"--output={output} must end in {kind.suffix}, as files of --format={form} do")
    if backbone.last is not None and not kind.is_program:
        names = ", ".join(name for name in FORMATS.names() if FORMATS[name].is_program)
        raise ConfigError(
            f"--format={form} holds weights under the names of the original model, which has no layer for what --adapt "
            f"learns; give --format as one of {names}, or keep the file of --adapt_output beside the weights"
        )
    read = weights_file(origin["source"])
    digests = checksums.beside(output)
    for file in (output, beside, digests):
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
        checksums.write(sums := Path(unfinished) / digests.name, {file.name: file, text.name: text})
        digests.unlink(missing_ok=True)  # of what is replaced
        text.rename(beside)
        file.rename(output)
        sums.rename(digests)
    return error


def export_folder(backbone: Backbone, output: Path, overwrite: bool = False, hub: str = "", **origin: str) -> float:
    """Writes the folder `output` that other software loads; it appears whole or not at all.

    Args:
      backbone: what to write.
      output: the folder.
      overwrite: whether it may be there already, from an earlier export.
      hub: `hf://ORG/NAME` that it is going to be pushed to; empty: it stays here.
      origin: `source`, `network` and `licence` for the card.

    Returns:
      Largest difference between its files' features and Flax's, in standard deviations of the latter.

    Raises:
      UserError: the output exists or is something else, or the backbone has a last layer, which weights cannot hold.
      ExportError: a file does not come back as what was written.
      NotFiniteError: the features of an image are NaN or infinite.
      NotInOnnx: an operation that the ONNX format lacks.
    """
    if backbone.last is not None:
        raise ConfigError(
            "--format=folder holds weights, which have no layer for what --adapt learns; give --format=onnx"
        )
    repository = repository_of(hub) if hub else ""
    replaceable_folder(output, "--output", overwrite, folder.is_export, weights_file(origin["source"]))
    check_finite(np.asarray(backbone.forward(np.full((1, *backbone.size, 3), 128, np.uint8))), ["a gray image"])
    with tempfile.TemporaryDirectory(prefix=".export", dir=output.parent) as unfinished:
        made = Path(unfinished) / output.name
        made.mkdir()
        error = folder.write(made, backbone, repository)
        if not error <= folder.TOLERANCE:
            raise ExportError(
                f"{backbone.name} as a folder differs from Flax by {error:.1e} standard deviations, at most "
                f"{folder.TOLERANCE} was expected; nothing was written"
            )
        files = {made / name: held for name, held in folder.HELD.items() if (made / name).is_file()}
        (made / folder.CARD).write_text(folder_card(files, backbone, error=error, **origin), "utf-8")
        checksums.write(made / checksums.SUMS, {path.name: path for path in sorted(made.iterdir())})
        if output.exists():
            output.rename(Path(unfinished) / "replaced")
        made.rename(output)
    return error


def adapted(backbone: Backbone, adaptation: Adaptation, camera: str | None = None) -> tuple[Backbone, str]:
    """A backbone that exported programs add an adaptation to, as a last layer, and what their card says of it.

    Args:
      backbone: that it was learned with.
      adaptation: that features go through.
      camera: whose mean they lose then; None: the mean over all cameras.

    Raises:
      UserError: it was learned with another network, or there is no such camera.
    """
    if camera is not None and camera not in adaptation.cameras:
        raise ConfigError(f"--camera: {unknown(f'camera {camera!r}', camera, adaptation.cameras)}")
    adaptation.check(backbone.features, backbone.digest())
    means, matrix = adaptation.normalization.means, adaptation.normalization.matrix
    mean = means[-1 if camera is None else adaptation.cameras.index(camera)]
    learned, whose = adaptation.learned, "over all its cameras" if camera is None else f"of camera `{camera}`"
    said = (
        f"to `{learned.data}` ({learned.images:,} images, {learned.tracklets:,} tracklets, no label): features of "
        f"length 1 lose the mean {whose}, then what varies within tracklets is evened out. Cameras with a mean of "
        f"their own, which `--camera` takes: {some(adaptation.cameras, 100)}. Digest `{adaptation.digest()}`"
    )
    return replace(backbone, last=(mean, np.eye(len(mean), dtype=np.float32) if matrix is None else matrix)), said


def main(_: Sequence[str]) -> None:
    """Loads, writes, says how far it is off."""
    args = flags.FLAGS
    if args.push:
        if args.format != FOLDER:
            raise ConfigError(f"--push={args.push} uploads a folder; give --format={FOLDER} as well")
        check(args.push)
    backbone = load(args.checkpoint, args.network, args.ignore)
    output = local_path(args.output, "--output")
    origin = {"source": args.checkpoint, "network": args.network, "licence": args.licence}
    adaptation = adaptation_of_flags(backbone)
    if adaptation is not None:
        backbone, origin["adapted"] = adapted(backbone, adaptation, args.camera)
    elif args.camera is not None:
        raise ConfigError(f"--camera={args.camera} says whose mean is taken off with --adapt=DATA; give that as well")
    if args.format != FOLDER:
        error = export(backbone, args.format, output, args.overwrite, **origin)
        print(f"{output}: {backbone.name}, largest difference {error:.1e}; card in {output}.md")
        return
    error = export_folder(backbone, output, args.overwrite, args.push, **origin)
    print(f"{output}: {backbone.name}, largest difference {error:.1e}; card in {output}/{folder.CARD}")
    if args.push:
        print(f"pushed to {push(output, args.push)}")


def define_flags() -> None:
    """Defines what the command takes."""
    define_weights_flags()
    flags.DEFINE_enum("format", None, (*FORMATS, FOLDER), "What to write.", required=True)
    flags.DEFINE_string("output", None, "The file to write, or the folder.", required=True)
    flags.DEFINE_string("push", "", "hf://ORG/NAME: repository on the Hugging Face Hub that the folder is uploaded to.")
    flags.DEFINE_string("licence", "", "Licence of the weights, for the card.")
    define_adapt_flags(own_means=False)
    flags.DEFINE_string("camera", None, "Whose mean features lose with --adapt; of all cameras where it is not given.")
    define_overwrite()


def run_main() -> None:
    """The command `cion-export`."""
    define_flags()
    cli.run(main)


if __name__ == "__main__":
    run_main()

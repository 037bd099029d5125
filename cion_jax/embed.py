"""Images -> features, with a trained or an untrained backbone.

    python -m cion_jax.embed --checkpoint=WORKDIR --input=FOLDER_OF_IMAGES --output=features.npz

writes `keys` (paths relative to the folder), `features` ([N, d] float32, in the order of the keys) and `meta` (JSON
text: model, step, input size, images that could not be read). `--output=features.parquet` writes columns `key` and
`feature`. What a killed run had embedded is taken over by the next one with the same flags.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import flags

from cion_jax.common import cli, images
from cion_jax.common.files import read_regular, replaceable, walk
from cion_jax.common.finite import check_finite
from cion_jax.common.paths import local_path
from cion_jax.common.progress import progress
from cion_jax.common.typed_config import ConfigError
from cion_jax.neighbors.cosine import unit
from cion_jax.reid import feature_file, resumable
from cion_jax.weights.extractor import Extractor, Flipped
from cion_jax.weights.load import Network, load, weights_file
from cion_jax.weights.onnx_backbone import OnnxBackbone

_THREADS, _AHEAD = 4, 256  # that decode; images decoded ahead of the device


@dataclass(frozen=True)
class Embedded:
    """Features of image files.

    Attributes:
      features: [n, d] float32 of the n files that could be read, in their order.
      kept: [N] bool, which those are.
      unreadable: one message for each of the others.
    """

    features: np.ndarray
    kept: np.ndarray
    unreadable: list[str]


def load_extractor(
    spec: str, network: Network = "teacher", ignore: Sequence[str] = (), batch_size: int = 64, flip: bool = False
) -> Extractor:
    """Makes a feature extractor from what --checkpoint says: the network of `onnx:FILE`, or what `load` takes.

    Args:
      spec: `onnx:FILE`, or as `load` takes it; so are the next three.
      network: which one of a run.
      ignore: regular expressions of names.
      batch_size: images that are computed at a time.
      flip: average the features of every image and of its mirror image.
    """
    if spec.startswith("onnx:"):
        plain: Extractor = OnnxBackbone(str(local_path(spec.removeprefix("onnx:"), "--checkpoint")), batch_size)
    else:
        plain = load(spec, network, ignore, batch_size)
    return Flipped(plain) if flip else plain


def embed_files(backbone: Extractor, paths: Sequence[Path], what: str) -> Embedded:
    """Embeds image files with progress on stderr; what cannot be read is reported, not fatal.

    Args:
      backbone: the model.
      paths: N image files.
      what: beginning of the progress line.

    Raises:
      NotFiniteError: features are NaN or infinite.
    """
    kept, unreadable = np.ones(len(paths), bool), []

    def readable() -> Iterator[np.ndarray]:
        tries = progress(_read_ahead(paths), what, total=len(paths))
        for i, image in enumerate(tries):
            if isinstance(image, str):
                kept[i] = False
                unreadable.append(image)
            else:
                yield image

    features = backbone(readable())
    check_finite(features, [path for path, is_kept in zip(paths, kept, strict=True) if is_kept])
    return Embedded(features, kept, unreadable)


def define_weights_flags(required: bool = True) -> None:
    """Defines what every command with weights takes: --checkpoint, which may be `required`, --network and --ignore."""
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Training workdir, file:NAME[@HEIGHTxWIDTH]=FILE (PyTorch or safetensors), a .safetensors file of "
        "cion_jax.export, or random:NAME[@HEIGHTxWIDTH], or, where features are made, onnx:FILE.",
        required=required,
    )
    flags.DEFINE_enum("network", "teacher", ("teacher", "student"), "Which network of the checkpoint.")
    flags.DEFINE_multi_string("ignore", [], "Regular expression (RE2) of names that FILE may lack or have too many.")


def define_extractor_flags(required: bool = True) -> None:
    """Defines what every command that makes features takes: the flags of its weights, --batch_size and --flip."""
    define_weights_flags(required)
    flags.DEFINE_integer("batch_size", 64, "Images computed at a time.", lower_bound=1)
    flags.DEFINE_bool("flip", False, "Average the features of every image and of its mirror image.")


def extractor_of_flags() -> Extractor:
    """The extractor that the flags of `define_extractor_flags` name."""
    args = flags.FLAGS
    return load_extractor(args.checkpoint, args.network, args.ignore, args.batch_size, args.flip)


def define_overwrite() -> None:
    """Defines --overwrite, of every command that writes a file."""
    flags.DEFINE_bool("overwrite", False, "Replaces an output that is there already.")


def list_unreadable(unreadable: Sequence[str], of: int, where: str) -> None:
    """Says on stderr which images were left out; says nothing if there are none."""
    if unreadable:
        print(f"{where}: {len(unreadable)} of {of} images left out, unreadable:", file=sys.stderr)
        print(*(f"  {line}" for line in unreadable), sep="\n", file=sys.stderr)


def _read_ahead(paths: Iterable[Path]) -> Iterator[np.ndarray | str]:
    """Yields images, or why one cannot be read, in order; threads decode a bounded number ahead."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque = deque()
        for path in paths:
            waiting.append(pool.submit(_try_to_read, path))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _try_to_read(path: Path) -> np.ndarray | str:
    try:
        return images.decode(read_regular(path))
    except (OSError, images.PictureError) as error:
        return f"{path}: {error}"


def main(_: Sequence[str]) -> None:
    """Embeds a folder of images."""
    args = flags.FLAGS
    folder, output = local_path(args.input, "--input"), local_path(args.output, "--output")
    feature_file.check_name(output)
    if not folder.is_dir():
        raise ConfigError(f"--input={folder} is no folder; give one with images")
    paths = sorted(path for path in walk(folder) if path.suffix.lower() in images.SUFFIXES and not path.is_dir())
    if not paths:
        raise ConfigError(f"no image in --input={folder}; expected files ending in {', '.join(images.SUFFIXES)}")
    replaceable(output, "--output", args.overwrite, [*paths, *weights_file(args.checkpoint)])
    backbone = extractor_of_flags()

    choice = [args.checkpoint, args.network, *args.ignore, backbone.name, backbone.step, args.flip]
    embedded = resumable.embed(functools.partial(embed_files, backbone), paths, output, choice)
    list_unreadable(embedded.unreadable, len(paths), "input")
    keys = [path.relative_to(folder).as_posix() for path, kept in zip(paths, embedded.kept, strict=True) if kept]
    features = unit(embedded.features, np.float32, 0) if args.normalize else embedded.features
    meta = {"checkpoint": args.checkpoint, "model": backbone.name, "step": backbone.step}
    meta |= {
        "input_size": backbone.size,
        "normalized": args.normalize,
        "flip": args.flip,
        "unreadable": embedded.unreadable,
    }
    feature_file.write(output, keys, features, meta)
    resumable.forget(output)
    print(f"{output}: {len(keys)} images, {backbone.features} features each")


def define_flags() -> None:
    """Defines what the command takes."""
    define_extractor_flags()
    flags.DEFINE_string("input", None, "Folder of images, searched recursively.", required=True)
    flags.DEFINE_string("output", None, "The .npz or .parquet file to write.", required=True)
    flags.DEFINE_bool("normalize", False, "Scale features to length 1.")
    define_overwrite()


def run_main() -> None:
    """The command `cion-embed`."""
    define_flags()
    cli.run(main)


if __name__ == "__main__":
    run_main()

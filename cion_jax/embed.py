"""Images -> features, with a trained or an untrained backbone.

    python -m cion_jax.embed --checkpoint=WORKDIR --input=FOLDER_OF_IMAGES --output=features.npz
    python -m cion_jax.embed --checkpoint=WORKDIR --input=IDENTITY_SHARDS --output=features.parquet
    python -m cion_jax.embed --checkpoint=WORKDIR --input=VIDEOS --source=mot --output=features.parquet

writes `keys` (paths relative to the folder; of shards and tracks `VIDEO/TRACKLET/NAME`), `features` ([N, d] float32, in
the order of the keys) and `meta` (JSON text: model, step, input size, images that could not be read).
`--output=features.parquet` writes columns `key` and `feature`. `--source` is a format of data_prep, whose settings are
given as `--source_setting=mot.first_frame=0`. What a killed run had embedded is taken over by the next one with the
same flags.

`--adapt=DATA` makes features of several cameras comparable by what unlabeled tracklets teach; `cion_jax.evaluate`,
`cion_jax.search` and `cion_jax.export` take it as well, and so a file of `--adapt_output`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from cion_jax.common import cli, images
from cion_jax.common.bounds import between
from cion_jax.common.files import read_regular, replaceable, walk
from cion_jax.common.finite import check_finite
from cion_jax.common.paths import local_path
from cion_jax.common.progress import progress
from cion_jax.common.typed_config import ConfigError
from cion_jax.data import image_parts, records
from cion_jax.data.image_parts import Part, Read
from cion_jax.neighbors.cosine import unit
from cion_jax.reid import adaptation as adaptations
from cion_jax.reid import feature_file, resumable, unlabeled
from cion_jax.reid.adaptation import Adaptation
from cion_jax.reid.feature_file import FeatureFile
from cion_jax.reid.unlabeled import Unlabeled
from cion_jax.weights.extractor import Extractor, Flipped
from cion_jax.weights.load import Network, load, weights_file
from cion_jax.weights.onnx_backbone import OnnxBackbone


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
    """Makes a feature extractor from what --checkpoint says: the network of `onnx:FILE?OPTIONS`, or what `load` takes.

    Args:
      spec: `onnx:FILE?OPTIONS`, see `common.image_options`, or as `load` takes it; so are the next three.
      network: which one of a run.
      ignore: regular expressions of names.
      batch_size: images that are computed at a time.
      flip: average the features of every image and of its mirror image.
    """
    if spec.startswith("onnx:"):
        plain: Extractor = OnnxBackbone(spec.removeprefix("onnx:"), batch_size)
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
    return embed_pictures(backbone, lambda i: read_regular(paths[i]), paths, what)


def embed_pictures(backbone: Extractor, read: Callable[[int], bytes], names: Sequence[object], what: str) -> Embedded:
    """The same of pictures that need not be files: `read` gives the bytes of one, for messages it is called by name."""
    pictures = enumerate(image_parts.read_ahead(read, names))
    named = ((place, str(names[place]), image) for place, image in pictures)
    places, _, features, unreadable = _embedded(backbone, named, len(names), what)
    kept = np.zeros(len(names), bool)
    kept[places] = True
    return Embedded(features, kept, unreadable)


def embed_part(backbone: Extractor, part: Part, what: str) -> resumable.Chunk:
    """The same of a part of any input, by key."""
    _, keys, features, unreadable = _embedded(backbone, part.read(), part.count, what)
    return resumable.Chunk(features, keys, unreadable)


def _embedded(
    backbone: Extractor, read: Read, count: int, what: str
) -> tuple[np.ndarray, list[str], np.ndarray, list[str]]:
    """Places, keys and features of the images that can be read, in order, and a message for each of the others."""
    places, keys, unreadable = [], [], []

    def readable() -> Iterator[np.ndarray]:
        for place, key, image in progress(read, what, total=count):
            if isinstance(image, str):
                unreadable.append(image)
            else:
                places.append(place)
                keys.append(key)
                yield image

    features = backbone(readable())
    check_finite(features, keys)
    order = np.argsort(np.array(places, np.int64))
    return np.array(places, np.int64)[order], [keys[i] for i in order], features[order], unreadable


def define_weights_flags(required: bool = True) -> None:
    """Defines what every command with weights takes: --checkpoint, which may be `required`, --network and --ignore."""
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Training workdir, file:NAME[@HEIGHTxWIDTH]=FILE (PyTorch or safetensors), a .safetensors file or a folder of "
        "cion_jax.export, hf://ORG/NAME on the Hugging Face Hub, random:NAME[@HEIGHTxWIDTH], mean:A+B of two of "
        "these, or, where features are made, onnx:FILE.",
        required=required,
    )
    flags.DEFINE_enum("network", "teacher", ("teacher", "student"), "Which network of the checkpoint.")
    flags.DEFINE_multi_string("ignore", [], "Regular expression (RE2) of names that FILE may lack or have too many.")


def define_extractor_flags(required: bool = True) -> None:
    """Defines what every command that makes features takes: the flags of its weights, --batch_size and --flip."""
    define_weights_flags(required)
    cli.define_number("batch_size", 64, "Images computed at a time.", between(1, 2**16))
    flags.DEFINE_bool("flip", False, "Average the features of every image and of its mirror image.")


def extractor_of_flags() -> Extractor:
    """The extractor that the flags of `define_extractor_flags` name."""
    args = flags.FLAGS
    return load_extractor(args.checkpoint, args.network, args.ignore, args.batch_size, args.flip)


def define_adapt_flags(own_means: bool = True) -> None:
    """Defines --adapt and --adapt_output, and --camera_means where many images are seen at a time."""
    flags.DEFINE_string(
        "adapt",
        None,
        "Make features of several cameras comparable: unlabeled tracklets to learn from (identity shards, a "
        "benchmark's folder, CAMERA/TRACKLET/IMAGE, or features of these), or a file of --adapt_output.",
    )
    flags.DEFINE_string("adapt_output", None, "Where to write what --adapt=DATA learns, a .safetensors file.")
    if own_means:
        flags.DEFINE_enum(
            "camera_means",
            "learned",
            ("learned", "own"),
            "Which mean images of a camera lose with --adapt: the one that was learned, or their own, which looks at "
            "all images that are embedded or scored.",
        )


def adaptation_of_flags(source: Extractor | FeatureFile) -> Adaptation | None:
    """What --adapt says, learned or read, for features of an extractor or of a file; None without it.

    Raises:
      UserError: nothing to learn from, other features than it was learned from, or features that are adapted already.
    """
    args = flags.FLAGS
    own_means = "camera_means" in args and args.camera_means == "own"
    if args.adapt is None:
        if args.adapt_output or own_means:
            raise ConfigError("--adapt_output and --camera_means say what to do with --adapt=DATA; give that as well")
        return None
    if isinstance(source, FeatureFile) and source.about.get("adapt"):
        raise ConfigError(f"the features of {source.path} are adapted already; leave --adapt out")
    path = local_path(args.adapt, "--adapt")
    output = args.adapt_output and local_path(args.adapt_output, "--adapt_output")
    if output:
        if output.suffix != adaptations.SUFFIX:
            raise ConfigError(f"--adapt_output={output} must end in {adaptations.SUFFIX}")
        replaceable(output, "--adapt_output", args.overwrite, [path])
    found = _adaptation(path, source)
    found.check(*_width_and_digest(source))
    if output:
        adaptations.save(output, found)
    found = replace(found, own_means=own_means)
    print(found.told(), file=sys.stderr)
    return found


def _adaptation(path: Path, source: Extractor | FeatureFile) -> Adaptation:
    if path.is_file() and path.suffix not in feature_file.SUFFIXES:
        return adaptations.load(path)
    if path.is_file():
        file = FeatureFile(path)
        if file.about.get("adapt"):
            raise ConfigError(f"the features of --adapt={path} are adapted already; give those that are not")
        data = unlabeled.of_keys(path.name, file.keys)
        return _learned(data, Embedded(file.features, np.ones(len(file.keys), bool), []), file)
    data = unlabeled.opened(path)
    if isinstance(source, FeatureFile):
        return _learned(data, stored(source, [Path(key) for key in data.keys]), source)
    return _learned(data, embed_pictures(source, data.read, data.keys, "embedding what is adapted to"), source)


def _learned(data: Unlabeled, embedded: Embedded, source: Extractor | FeatureFile) -> Adaptation:
    """Learns from the images that have features, and says which have none."""
    list_unreadable(embedded.unreadable, len(data.keys), "--adapt")
    _, digest = _width_and_digest(source)
    model = source.about.get("model", source.path.name) if isinstance(source, FeatureFile) else source.name
    check_finite(embedded.features, [key for key, kept in zip(data.keys, embedded.kept, strict=True) if kept])
    camera = [name for name, kept in zip(data.camera, embedded.kept, strict=True) if kept]
    origin = {"data": data.name, "model": model, "extractor": digest}
    return adaptations.learn(embedded.features, camera, data.tracklet[embedded.kept], origin)


def _width_and_digest(source: Extractor | FeatureFile) -> tuple[int, str]:
    if isinstance(source, FeatureFile):
        return source.features.shape[1], source.about.get("extractor", "")
    return source.features, source.digest()


def stored(file: FeatureFile, paths: Sequence[Path]) -> Embedded:
    """Features that a file has of images, as if these had been embedded."""
    rows = file.rows(paths)
    lost = [f"{path}: no features in {file.path}" for path, row in zip(paths, rows, strict=True) if row < 0]
    return Embedded(file.features[rows[rows >= 0]], rows >= 0, lost)


def adapt(found: Adaptation, features: np.ndarray, camera: Sequence[str], what: str) -> np.ndarray:
    """Adapts [n, d] features of n cameras' images, and says on stderr how many of these cameras it does not know."""
    unseen = found.unseen(camera)
    if unseen:
        print(
            f"{what}: {unseen:,} of {len(camera):,} images are of cameras that nothing was learned from; they lose the "
            "mean over all cameras",
            file=sys.stderr,
        )
    return found(features, camera)


def choice_of(backbone: Extractor, flip: bool) -> list[Any]:
    """What determines features besides the images: what a killed run embedded with another is not taken over."""
    return [backbone.digest(), backbone.name, backbone.step, flip]


def define_overwrite() -> None:
    """Defines --overwrite, of every command that writes a file."""
    flags.DEFINE_bool("overwrite", False, "Replaces an output that is there already.")


def list_unreadable(unreadable: Sequence[str], of: int, where: str) -> None:
    """Says on stderr which images were left out; says nothing if there are none."""
    if unreadable:
        print(f"{where}: {len(unreadable)} of {of} images left out, unreadable:", file=sys.stderr)
        print(*(f"  {line}" for line in unreadable), sep="\n", file=sys.stderr)


def main(_: Sequence[str]) -> None:
    """Embeds a folder of images, identity shards or the crops of a source."""
    args = flags.FLAGS
    folder, output = local_path(args.input, "--input"), local_path(args.output, "--output")
    feature_file.check_name(output)
    parts, read_from = _parts(folder, args.source, args.source_setting)
    replaceable(output, "--output", args.overwrite, [*read_from, *weights_file(args.checkpoint)])
    backbone = extractor_of_flags()
    adaptation = adaptation_of_flags(backbone)

    choice = choice_of(backbone, args.flip)
    embedded = resumable.embed(functools.partial(embed_part, backbone), parts, output, choice)
    list_unreadable(embedded.unreadable, sum(part.count for part in parts), "input")
    features = unit(embedded.features, np.float32, 0) if args.normalize else embedded.features
    meta = {"checkpoint": args.checkpoint, "model": backbone.name, "step": backbone.step}
    meta |= {"extractor": backbone.digest(), "adapt": None}
    if adaptation:
        camera = unlabeled.cameras_of(embedded.keys, adaptation.cameras)
        features = adapt(adaptation, features, camera, "input")
        meta["adapt"] = {**adaptation.about(), "unseen": adaptation.unseen(camera)}
    meta |= {
        "input_size": backbone.size,
        "normalized": args.normalize,
        "flip": args.flip,
        "unreadable": embedded.unreadable,
    }
    feature_file.write(output, embedded.keys, features, meta)
    resumable.forget(output)
    print(f"{output}: {len(embedded.keys)} images, {backbone.features} features each")


def _parts(folder: Path, source: str | None, settings: Sequence[str]) -> tuple[list[Part], list[Path]]:
    """What --input holds, and files that are read."""
    if source:
        return image_parts.OPENERS["data_prep"](source, folder, _nested(settings)), [folder]
    if settings:
        raise ConfigError(f"--source_setting={settings[0]} is of a format of data_prep; say which one as --source")
    if not folder.is_dir():
        raise ConfigError(f"--input={folder} is no folder; give one with images, or identity shards")
    if records.is_data(folder):
        return image_parts.of_shards(folder), [folder / records.INDEX_FILE]
    paths = sorted(path for path in walk(folder) if path.suffix.lower() in images.SUFFIXES and not path.is_dir())
    if not paths:
        raise ConfigError(
            f"no image in --input={folder}; expected files ending in {', '.join(images.SUFFIXES)}, or, for videos with "
            "tracks, --source=mot"
        )
    return image_parts.of_files(folder, paths), paths


def _nested(settings: Sequence[str]) -> dict[str, Any]:
    """["mot.first_frame=0"] -> {"mot": {"first_frame": 0}}; ConfigError where one is no NAME=VALUE."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not all(name.split(".")):
            raise ConfigError(f"got --source_setting={setting}, expected NAME=VALUE, like mot.first_frame=0")
        *groups, last = name.split(".")
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = cli.literal(text)
    return found


def define_flags() -> None:
    """Defines what the command takes."""
    define_extractor_flags()
    flags.DEFINE_string(
        "input",
        None,
        "Folder of images, searched recursively, or of identity shards, or what --source reads.",
        required=True,
    )
    flags.DEFINE_string("source", None, "Format of data_prep that the input has: mot, tracklets, annotations, ...")
    flags.DEFINE_multi_string("source_setting", [], "Setting of that format, NAME=VALUE, like mot.first_frame=0.")
    flags.DEFINE_string("output", None, "The .npz or .parquet file to write.", required=True)
    flags.DEFINE_bool("normalize", False, "Scale features to length 1.")
    define_adapt_flags()
    define_overwrite()


def run_main() -> None:
    """The command `cion-embed`."""
    define_flags()
    cli.run(main)


if __name__ == "__main__":
    run_main()

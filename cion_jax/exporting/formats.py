"""The formats of an export. Each writes one file and reads it again, to measure how far it is from the backbone.

`safetensors` and `flax` hold weights; they must come back exactly. `stablehlo` and `onnx` hold the program as well,
from uint8 pixels to features of length 1; their features are compared with those of Flax.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import serialization
from jax import export

from cion_jax.common.extras import needed
from cion_jax.common.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from cion_jax.common.registry import Registry
from cion_jax.common.typed_config import ConfigError
from cion_jax.models.layers import l2_normalize
from cion_jax.weights import torch_names
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.load import load

PLATFORMS = ("cpu", "tpu", "cuda")
_IMAGES = 3  # of the comparison: more than one, and a number that no file knows


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
      suffix: of its name.
      write: writes the backbone to a new file.
      error: reads the file and gives its largest difference from the backbone, in standard deviations of the latter.
      tolerance: how large that may be.
      use: a Python line that reads it, with FILE for its name.
      holds: what is in it, for people.
      is_program: whether it computes features, and does not hold weights alone.
    """

    suffix: str
    write: Callable[[Path, Backbone], None]
    error: Callable[[Path, Backbone], float]
    tolerance: float
    use: str
    holds: str
    is_program: bool = False


def program(backbone: Backbone) -> Callable[[Any], jax.Array]:
    """[B, H, W, 3] uint8 RGB of the backbone's input size -> [B, d] float32 features of length 1."""
    return lambda image_BHWC: _of_length_one(backbone, backbone.forward(image_BHWC))


def program_of_normalized(backbone: Backbone) -> Callable[[Any], jax.Array]:
    """[B, 3, H, W] float32 RGB with ImageNet's mean and standard deviation taken off -> as `program`.

    That is what trackers give to every network; one that was trained with other values gets those.
    """
    own, usual = backbone.preprocessing, Preprocessing()

    def run(x_BCHW: Any) -> jax.Array:
        x = x_BCHW.transpose(0, 2, 3, 1)
        if (own.mean, own.std) != (usual.mean, usual.std):
            x = (x * jnp.array(usual.std) + jnp.array(usual.mean) - jnp.array(own.mean)) / jnp.array(own.std)
        return _of_length_one(backbone, backbone.module()(x, train=False))

    return run


def normalized(image_BHWC: np.ndarray) -> np.ndarray:
    """[B, H, W, 3] uint8 RGB -> the input of `program_of_normalized`."""
    x = (image_BHWC / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)


def _of_length_one(backbone: Backbone, z_BD: jax.Array) -> jax.Array:
    if backbone.last is None:
        return l2_normalize(z_BD)
    mean_D, matrix_DD = backbone.last
    return l2_normalize((l2_normalize(z_BD) - mean_D) @ matrix_DD)


def safetensors_metadata(backbone: Backbone) -> dict[str, str]:
    """What a file says of its network; "format" tells PyTorch's loaders whose axis order this is."""
    metadata = {"format": "pt", "model": backbone.name, "input_size": json.dumps(backbone.size)}
    return metadata | {name: json.dumps(getattr(backbone.preprocessing, name)) for name in ("mean", "std")}


def _write_safetensors(path: Path, backbone: Backbone) -> None:
    named = torch_names.to_torch(backbone.params, backbone.stats)
    path.write_bytes(safetensors.numpy.save(named, safetensors_metadata(backbone)))


def safetensors_error(path: Path, backbone: Backbone) -> float:
    """Infinite where a file, or a folder of `exporting.folder`, does not come back as this very backbone; else 0."""
    found = load(str(path))
    return _tree_error((found.params, found.stats), backbone)


def _write_flax(path: Path, backbone: Backbone) -> None:
    trees = jax.tree.map(np.asarray, {"params": backbone.params, "stats": backbone.stats})
    values = {name: list(getattr(backbone.preprocessing, name)) for name in ("mean", "std")}
    path.write_bytes(
        serialization.msgpack_serialize({"model": backbone.name, "input_size": list(backbone.size)} | values | trees)
    )


def _flax_error(path: Path, backbone: Backbone) -> float:
    found = serialization.msgpack_restore(path.read_bytes())
    return _tree_error((found["params"], found["stats"]), backbone)


def _tree_error(found: tuple, backbone: Backbone) -> float:
    expected = backbone.params, backbone.stats
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True), expected, found)
    return 0.0 if all(jax.tree.leaves(same)) else float("inf")


def _write_stablehlo(path: Path, backbone: Backbone) -> None:
    (batch,) = export.symbolic_shape("b")
    image = jax.ShapeDtypeStruct((batch, *backbone.size, 3), jnp.uint8)
    path.write_bytes(export.export(jax.jit(program(backbone)), platforms=PLATFORMS)(image).serialize())


def _stablehlo_error(path: Path, backbone: Backbone) -> float:
    return program_error(export.deserialize(bytearray(path.read_bytes())).call, backbone)


def onnx_file(what: str = "--format=onnx") -> ModuleType:
    """`exporting.onnx_file`, which needs packages that nothing else needs; `what` asks for it, for the message."""
    with needed(what, "onnx"):
        from cion_jax.exporting import onnx_file
    return onnx_file


def _write_onnx(path: Path, backbone: Backbone) -> None:
    onnx_file().write(path, program(backbone), backbone.size)


def _onnx_error(path: Path, backbone: Backbone) -> float:
    return program_error(onnx_file().open_program(path), backbone)


def program_error(run: Callable, backbone: Backbone) -> float:
    """Largest difference of a function of uint8 images from `program`, in standard deviations of the latter."""
    shape = (_IMAGES, *backbone.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # accelerators multiply in less than float32
        expected, found = (np.asarray(f(images)) for f in (program(backbone), run))
    return float(np.abs(found - expected).max() / expected.std())


_PROGRAM = "the program with its weights: `images` [any, height, width, 3] uint8 RGB -> features of length 1, float32"

FORMATS: Registry[Format] = Registry("export format", "cion_jax.exporting.formats", "formats")
FORMATS.register_all(
    {
        "safetensors": Format(
            ".safetensors",
            _write_safetensors,
            safetensors_error,
            0.0,
            "model.load_state_dict(safetensors.torch.load_file('FILE'), strict=True)  # of the original model",
            "weights and buffers under PyTorch's names and in its axis order",
        ),
        "flax": Format(
            ".msgpack",
            _write_flax,
            _flax_error,
            0.0,
            "flax.serialization.msgpack_restore(open('FILE', 'rb').read())  # {'params': ..., 'stats': ..., ...}",
            "weights and running statistics as nested dicts of arrays, with Flax's names and axis order",
        ),
        "stablehlo": Format(
            ".stablehlo",
            _write_stablehlo,
            _stablehlo_error,
            1e-4,
            "jax.export.deserialize(bytearray(open('FILE', 'rb').read())).call(images)",
            f"{_PROGRAM}; for {', '.join(PLATFORMS)}",
            is_program=True,
        ),
        "onnx": Format(
            ".onnx",
            _write_onnx,
            _onnx_error,
            1e-4,
            "onnxruntime.InferenceSession('FILE').run(None, {'image': images})[0]",
            _PROGRAM,
            is_program=True,
        ),
    }
)


def of_suffix(output: Path) -> str:
    """Name of the format whose files end as `output` does; raises ConfigError where there is none."""
    found = {FORMATS[name].suffix: name for name in reversed(FORMATS.names())}
    if output.suffix not in found:
        raise ConfigError(f"{output} is of no format that can be written; expected a name in {', '.join(found)}")
    return found[output.suffix]

"""One folder that other software loads: weights with the configs that `reid` and timm read, ONNX files, card, example.

A config is written only where its reader computes our features. Where neither does, `network.py` is the network in
plain PyTorch; where not even that is here (a neck, a backbone of another package), the ONNX files remain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import safetensors.numpy

from cion_jax.common.checksums import SUMS
from cion_jax.exporting import examples, formats
from cion_jax.exporting.formats import program, program_error, program_of_normalized, safetensors_metadata
from cion_jax.models.layers import resize_positions
from cion_jax.weights import torch_names
from cion_jax.weights.backbone import Backbone
from cion_jax.weights.folder import (
    ON_HUB,
    REID,
    TIMM_CONFIG,
    TIMMS,
    WEIGHTS,
    reid_architecture,
    reid_config,
    timm_config,
)
from cion_jax.weights.positions import PATCH, POSITIONS
from cion_jax.weights.timm_names import TIMM

CARD = "README.md"
TOLERANCE = 1e-4
ONNX, ONNX_UINT8, NETWORK, EXAMPLE = "model.onnx", "model_uint8.onnx", "network.py", "example.py"
# The file of `exporting.pytorch` that has a backbone which no other package has.
NETWORKS = {
    **{f"resnet{depth}{ibn}": "resnet" for depth in (18, 50, 101, 152) for ibn in ("", "_ibn")},
    **{f"repvit_{size}": "repvit" for size in ("m0_9", "m1_0", "m1_5")},
    **{f"vit_{size}": "vit" for size in ("tiny", "small", "base")},
    **{f"osnet_{kind}_x1_0": "osnet" for kind in ("ibn", "ain")},
}
HELD = {
    WEIGHTS: "weights and buffers in PyTorch's axis order, under the names of what loads them",
    REID: "architecture and preprocessing, for the package `reid`",
    TIMM_CONFIG: "architecture, its arguments and preprocessing, for timm",
    NETWORK: "the network in PyTorch: no other package has it",
    ONNX: "float32 [any, 3, height, width] RGB, ImageNet's mean and deviation taken off -> features of length 1; "
    "for trackers",
    ONNX_UINT8: "uint8 [any, height, width, 3] RGB -> features of length 1",
    EXAMPLE: "features of image files, a few lines",
}


def is_export(folder: Path) -> bool:
    """Whether there is nothing in a folder but what an earlier export wrote, so that it may be replaced."""
    return {path.name for path in folder.iterdir()} <= {*HELD, CARD, SUMS}


def write(folder: Path, backbone: Backbone, hub: str = "") -> float:
    """Writes all but the card into a folder that is there, and reads it again.

    Args:
      folder: empty.
      backbone: what to write; without a last layer, which weights have no place for.
      hub: `ORG/NAME` of the repository on the Hugging Face Hub that it is written for. There `reid` can be told by
        which arguments timm builds the network, which a folder alone cannot.

    Returns:
      Largest difference from Flax, in standard deviations of the features.
    """
    backbone = at_its_size(backbone)
    _write_weights(folder / WEIGHTS, backbone)
    for name, text in texts(backbone, hub).items():
        (folder / name).write_text(text, "utf-8")
    onnx = formats.onnx_file("--format=folder")
    onnx.write(folder / ONNX, program_of_normalized(backbone), backbone.size, normalized=True)
    onnx.write(folder / ONNX_UINT8, program(backbone), backbone.size)
    takes_normalized = onnx.open_program(folder / ONNX)
    return max(
        formats.safetensors_error(folder / WEIGHTS, backbone),
        program_error(lambda images: takes_normalized(formats.normalized(images)), backbone),
        program_error(onnx.open_program(folder / ONNX_UINT8), backbone),
    )


def texts(backbone: Backbone, hub: str = "") -> Mapping[str, str]:
    """The configs, the network and the example that a folder of a backbone has, by file name."""
    name, values, found = backbone.name, backbone.preprocessing, {}
    architecture = reid_architecture(name) or (f"{ON_HUB}{hub}" if hub and name in TIMM else "")
    if architecture:
        found[REID] = _json(reid_config(architecture, values))
    if name in TIMM:
        found[TIMM_CONFIG] = _json(timm_config(name, backbone.features, values))
    if name in NETWORKS:
        file = resources.files("cion_jax.exporting.pytorch").joinpath(f"{NETWORKS[name]}.py")
        found[NETWORK] = file.read_text("utf-8")
    return found | {EXAMPLE: examples.text(name, values, found)}


def at_its_size(backbone: Backbone) -> Backbone:
    """The same with positions of the grid of its own images, which is what files of other packages hold."""
    stored = backbone.params.get(POSITIONS)
    if stored is None:
        return backbone
    grid = backbone.size[0] // PATCH, backbone.size[1] // PATCH
    if stored.ndim == 4:
        return replace(backbone, params=backbone.params | {POSITIONS: np.asarray(resize_positions(stored, *grid))})
    count = grid[0] * grid[1]
    if stored.shape[1] == 1 + count:
        return backbone
    table = resize_positions(stored[:, 1:].reshape(1, 16, 8, -1), *grid).reshape(1, count, -1)
    return replace(backbone, params=backbone.params | {POSITIONS: np.concatenate([stored[:, :1], table], axis=1)})


def _write_weights(path: Path, backbone: Backbone) -> None:
    named, metadata = torch_names.to_torch(backbone.params, backbone.stats), safetensors_metadata(backbone)
    if backbone.name in TIMM:
        named = {theirs: named[ours] for ours, theirs in TIMM[backbone.name].renamed(named).items()}
        metadata["names"] = TIMMS
    path.write_bytes(safetensors.numpy.save(named, metadata))


def _json(content: Mapping) -> str:
    return json.dumps(content, indent=2) + "\n"

"""Folders that other software loads: `weights.safetensors`, and what says of which network they are.

`reid_config.json` is what the package `reid` reads, `config.json` what timm reads. Tensors bear timm's names where timm
has the network, else those of the original code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cion_jax.common.files import read_regular
from cion_jax.common.preprocessing import Preprocessing
from cion_jax.common.printable import printable, some
from cion_jax.weights.timm_names import TIMM
from cion_jax.weights.torch_names import WeightsError

WEIGHTS, REID, TIMM_CONFIG = "weights.safetensors", "reid_config.json", "config.json"
ON_HUB = "timm:hf-hub:"  # before ORG/NAME: `reid` lets timm read its own config there, with its arguments
TIMMS = "timm"  # what the metadata of a file say of its names where they are timm's
# Of the six OSNets `reid` has four, under our names.
REID_OSNETS = ("osnet_x0_25", "osnet_x0_5", "osnet_x0_75", "osnet_x1_0")
# How crops of people get their size elsewhere; the nearest there is to what is done here (`weights.backbone.fit`).
INTERPOLATION = "bicubic"
_LARGEST = 2**20  # bytes of a config


def reid_architecture(backbone: str) -> str:
    """What `reid` calls a backbone; empty where it cannot build it: it has no way to tell timm a size."""
    if backbone in REID_OSNETS:
        return backbone
    found = TIMM.get(backbone)
    return "" if found is None or found.sized else f"timm:{found.architecture}"


def reid_config(architecture: str, preprocessing: Preprocessing) -> dict[str, Any]:
    """The content of `reid_config.json`."""
    return {
        "architecture": architecture,
        "preprocessing": {
            "input_size": list(preprocessing.size),
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": INTERPOLATION,
            "to_rgb": True,
            "resize_mode": "stretch",
            "pad_value": 114,
        },
    }


def timm_config(backbone: str, features: int, preprocessing: Preprocessing) -> dict[str, Any]:
    """The content of timm's `config.json`; KeyError where timm has no such network."""
    found = TIMM[backbone]
    return {
        "architecture": found.architecture,
        "num_classes": 0,
        "num_features": features,
        "model_args": found.arguments(preprocessing.size),
        "pretrained_cfg": {
            "input_size": [3, *preprocessing.size],
            "fixed_input_size": found.sized,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": INTERPOLATION,
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "num_classes": 0,
            "pool_size": None,
            "custom_load": False,
            "hf_hub_filename": WEIGHTS,
        },
    }


def is_folder(path: Path) -> bool:
    """Whether it is one of these, not a training run."""
    return (path / WEIGHTS).is_file() and not (path / "checkpoints").is_dir()


def backbone_of(folder: Path, metadata: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Which backbone the weights of a folder are of.

    Args:
      folder: with `weights.safetensors`.
      metadata: of that file.

    Returns:
      Its name, and metadata that say its images: the file's own, else those of `reid_config.json`.

    Raises:
      WeightsError: nothing says it, what says it is no config, names a network that is not in the zoo, or the file and
        the config contradict each other.
    """
    config, named = _config(folder / REID), metadata.get("model", "")
    if config is None:
        if not named:
            raise WeightsError(
                f"{folder} does not say of which backbone it is: expected {REID}, or a file of cion-export"
            )
        return named, dict(metadata)
    said = config["architecture"]
    if named:
        expected = reid_architecture(named)
        if said != expected and not (named in TIMM and said.startswith(ON_HUB)):
            raise WeightsError(
                f"{folder / REID} has the architecture {printable(said)!r}, the weights are of {printable(named)!r}, "
                f"expected {expected or 'no such file'}; export the folder again"
            )
        return named, dict(metadata)
    return _named_by(config, folder / REID)


def _named_by(config: Mapping[str, Any], path: Path) -> tuple[str, dict[str, str]]:
    """As `backbone_of`, by the config alone: a folder that `reid` has written."""
    known = {architecture: name for name in (*REID_OSNETS, *TIMM) if (architecture := reid_architecture(name))}
    said, values = config["architecture"], config["preprocessing"]
    if said not in known:
        raise WeightsError(f"{path} has the architecture {printable(said)!r}, expected one of {some(known, 100)}")
    if (values.get("resize_mode", "stretch"), values.get("to_rgb", True)) != ("stretch", True):
        raise WeightsError(
            f"{path} is of a network for images that are not stretched, or not RGB (resize_mode, to_rgb); here they "
            "are, and its features would be others"
        )
    fields = {field: json.dumps(value) for field, value in values.items() if field in ("mean", "std")}
    size = json.dumps(values.get("input_size", Preprocessing().size))
    return known[said], {"model": known[said], "input_size": size, "names": TIMMS} | fields


def _config(path: Path) -> dict[str, Any] | None:
    """The config of `reid`, with its two fields there; None where there is none."""
    if not path.exists():
        return None
    try:
        text = read_regular(path)
        found = json.loads(text) if len(text) <= _LARGEST else None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {printable(error)}; export the folder again") from error
    if not isinstance(found, dict) or not isinstance(found.get("architecture"), str):
        raise WeightsError(f"{path} names no architecture; export the folder again")
    values = found.get("preprocessing", {})
    return {"architecture": found["architecture"], "preprocessing": values if isinstance(values, dict) else {}}

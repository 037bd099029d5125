"""What other software computes of an exported folder; run by `benchmarks.loading` with the Python that has it.

    PYTHON benchmarks/loading_torch.py FOLDER CROPS     # CROPS: features.npy of cion_jax, and 000.png, 001.png, ...

Prints one JSON object: loader -> largest difference from cion_jax's features, all of length 1, in standard deviations
of the latter; or why it does not load. Warnings are errors: what loads in part is not loaded.
"""

from __future__ import annotations

import importlib.metadata
import json
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

Features = Callable[[Path, list[str]], np.ndarray]
PACKAGES = ("torch", "timm", "reid", "boxmot", "onnxruntime")


def reid(folder: Path, paths: list[str]) -> np.ndarray:
    """The package `reid`, by its own config."""
    from reid import ReIDModel

    return ReIDModel.from_pretrained(str(folder), device="cpu").extract_embeddings_from_paths(paths)


def timm(folder: Path, paths: list[str]) -> np.ndarray:
    """timm, by its own config, and its own preprocessing."""
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    return _in_batches(model, torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths]))


def by_name(folder: Path, paths: list[str]) -> np.ndarray:
    """What somebody may try: timm's network of the same name, weights loaded strictly."""
    import timm
    from safetensors.torch import load_file

    model = timm.create_model(_name(folder), num_classes=0)
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    return _in_batches(model.eval(), _normalized(paths))


def network(folder: Path, paths: list[str]) -> np.ndarray:
    """The folder's own PyTorch file, weights loaded strictly."""
    from safetensors.torch import load_file

    model = runpy.run_path(str(folder / "network.py"))["create"](_name(folder))
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
    return _in_batches(model, _normalized(paths))


def boxmot(folder: Path, paths: list[str]) -> np.ndarray:
    """BoxMOT, which trackers take it from; images as OpenCV has them."""
    from boxmot.reid.core.runtime import ReID

    return ReID(folder / "model.onnx", device="cpu")([_pixels(path)[..., ::-1].copy() for path in paths])


def onnx(folder: Path, paths: list[str]) -> np.ndarray:
    """ONNX Runtime, float32."""
    return _session(folder / "model.onnx", "images", _normalized(paths).numpy())


def onnx_uint8(folder: Path, paths: list[str]) -> np.ndarray:
    """ONNX Runtime, pixels."""
    return _session(folder / "model_uint8.onnx", "image", np.stack([_pixels(path) for path in paths]))


LOADERS: dict[str, Features] = {
    function.__name__: function for function in (reid, timm, by_name, network, boxmot, onnx, onnx_uint8)
}


def measured(load: Features, folder: Path, crops: Path) -> float | str:
    """Largest difference of a loader's features, or what it says where it does not load."""
    expected = _of_length_one(np.load(crops / "features.npy"))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=UserWarning, module=r"(reid|timm|__main__)")
            found = load(folder, [str(path) for path in sorted(crops.glob("*.png"))])
    except Exception as error:  # whatever a loader raises is what its user sees
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    return float(np.abs(_of_length_one(found) - expected).max() / expected.std())


def _name(folder: Path) -> str:
    from safetensors import safe_open

    with safe_open(folder / "weights.safetensors", "numpy") as file:
        return file.metadata()["model"]


def _in_batches(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([model(batch).numpy() for batch in images.split(20)])


def _session(path: Path, name: str, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {name: batch})[0] for batch in np.array_split(images, 5)])


def _pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def _normalized(paths: list[str]) -> torch.Tensor:
    images = np.stack([_pixels(path) for path in paths]) / 255
    x = (images - np.array((0.485, 0.456, 0.406))) / np.array((0.229, 0.224, 0.225))
    return torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))


def _of_length_one(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def versions() -> dict[str, str]:
    """Releases of what is installed."""
    installed = {name.metadata["Name"].lower(): name.version for name in importlib.metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


def main(folder: Path, crops: Path) -> None:
    """Prints what every loader makes of the folder."""
    torch.set_num_threads(2)
    found = {name: measured(load, folder, crops) for name, load in LOADERS.items()}
    print(json.dumps({"versions": versions(), "found": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())

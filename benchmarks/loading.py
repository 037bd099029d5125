"""What other software makes of an exported folder: `python -m benchmarks.loading --env=ENV`.

    python -m venv ENV && ENV/bin/pip install reid timm boxmot onnxruntime
    python -m benchmarks.loading --env=ENV [--models=osnet_x0_25,swin_tiny] [--crops=FOLDER]

For every backbone of the zoo: weights that leave no layer without effect, `--format=folder`, and in the other
environment the features of 100 images, through every package that may load it. A number is the largest difference from
ours, in standard deviations; features have length 1.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from absl import app, flags

from benchmarks.common import ROOT, define_names, header, table
from cion_jax import models
from cion_jax.common.images import decode
from cion_jax.exporting import folder
from cion_jax.weights.backbone import Backbone, fit
from cion_jax.weights.load import load

ENV = flags.DEFINE_string("env", None, "Virtual environment with torch, timm, reid, boxmot and onnxruntime.")
MODELS = define_names("models", models.names(), None, "Backbones to try; all of them by default.")
IMAGES = flags.DEFINE_integer("images", 100, "How many.", lower_bound=1)
CROPS = flags.DEFINE_string("crops", None, "Folder of images of people; without one, colored noise.")

COLUMNS = ("reid", "timm", "network", "boxmot", "onnx", "onnx_uint8", "by_name")
_SPREAD = 0.1  # of the noise on weights, relative for kernels: layers that start as zero or one get an effect
LOADS = 1e-4


def shaken(backbone: Backbone) -> Backbone:
    """The same with noise on every weight and statistic, so that no layer is without effect."""
    rng = np.random.default_rng(0)

    def leaf(path: Any, value: Any) -> np.ndarray:
        noise = rng.standard_normal(np.shape(value)).astype(np.float32)
        name = str(path[-1])
        if "var" in name:
            return rng.uniform(0.5, 1.5, np.shape(value)).astype(np.float32)
        return np.asarray(value * (1 + _SPREAD * noise) if "kernel" in name else value + _SPREAD * noise, np.float32)

    params, stats = (jax.tree_util.tree_map_with_path(leaf, tree) for tree in (backbone.params, backbone.stats))
    return replace(backbone, params=params, stats=stats)


def images(count: int, size: tuple[int, int], crops: str | None = None) -> list[np.ndarray]:
    """[height, width, 3] uint8 images of the very size, so that nobody resizes anything."""
    if crops:
        found = sorted(path for path in Path(crops).iterdir() if path.suffix.lower() in (".jpg", ".png"))
        return [fit(decode(path.read_bytes()), size) for path in found[:: max(len(found) // count, 1)][:count]]
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 4, 3)).astype(np.uint8)
    return [cv2.resize(one, size[::-1], interpolation=cv2.INTER_CUBIC) for one in coarse]


def write(backbone: Backbone, place: Path, crops: list[np.ndarray]) -> tuple[Path, Path]:
    """The exported folder, and the folder of images and of our features."""
    exported, shown = place / backbone.name, place / "crops"
    exported.mkdir()
    shown.mkdir(exist_ok=True)
    folder.write(exported, backbone)
    np.save(shown / "features.npy", backbone(crops))
    for number, crop in enumerate(crops):
        cv2.imwrite(str(shown / f"{number:03}.png"), crop[..., ::-1])
    return exported, shown


def elsewhere(python: Path, exported: Path, crops: Path) -> dict[str, Any]:
    """What the other environment makes of a folder: `versions` and `found`."""
    command = [str(python), str(ROOT / "benchmarks/loading_torch.py"), str(exported), str(crops)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def cell(found: float | str) -> str:
    """A result for people."""
    if isinstance(found, str):
        return "refused"
    return f"{found:.0e}" if found < LOADS else f"**{found:.2f}**"


def main(_: list[str]) -> None:
    """Prints the table."""
    header("Exported folders in other software")
    python = Path(ENV.value or "") / "bin/python"
    print(f"images: {IMAGES.value}, {'from a folder' if CROPS.value else 'colored noise'}", flush=True)
    told = False
    for name in MODELS.value or models.names():
        with tempfile.TemporaryDirectory() as place:
            backbone = shaken(load(f"random:{name}"))
            done = elsewhere(python, *write(backbone, Path(place), images(IMAGES.value, backbone.size, CROPS.value)))
        if not told:
            print(", ".join(f"{package} {version}" for package, version in done["versions"].items()) + "\n")
            table(["backbone", *COLUMNS], [])
            told = True
        print("| " + " | ".join([name, *(cell(done["found"][column]) for column in COLUMNS)]) + " |", flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("env")
    app.run(main)

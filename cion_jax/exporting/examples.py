"""`example.py` of an exported folder: features of image files, in a few lines, by the software that has the network."""

from __future__ import annotations

from collections.abc import Container

from cion_jax.common.preprocessing import Preprocessing
from cion_jax.weights.folder import REID, TIMM_CONFIG

_REID = """\
import pathlib, sys
from reid import ReIDModel

model = ReIDModel.from_pretrained(str(pathlib.Path(__file__).resolve().parent))
features = model.extract_embeddings_from_paths(sys.argv[1:])
print(features.shape)
"""
_TIMM = """\
import pathlib, sys, timm, torch
from PIL import Image

model = timm.create_model(f"local-dir:{pathlib.Path(__file__).resolve().parent}", pretrained=True).eval()
prepare = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
with torch.inference_mode():
    features = model(torch.stack([prepare(Image.open(path).convert("RGB")) for path in sys.argv[1:]]))
print(tuple(features.shape))
"""
_OWN = """\
import pathlib, sys, network
from reid import ReIDModel, ReIDPreprocessing

weights = str(pathlib.Path(__file__).resolve().with_name("weights.safetensors"))
prepare = ReIDPreprocessing(SIZE, MEAN, STD, "bicubic")
model = ReIDModel.from_pretrained(weights, architecture=NETWORK, preprocessing=prepare)
features = model.extract_embeddings_from_paths(sys.argv[1:])
print(features.shape)
"""
_ONNX = """\
import pathlib, sys, cv2, numpy, onnxruntime

session = onnxruntime.InferenceSession(pathlib.Path(__file__).resolve().with_name("model_uint8.onnx"))
images = [cv2.resize(cv2.imread(path), WIDTH_HEIGHT, interpolation=cv2.INTER_CUBIC) for path in sys.argv[1:]]
features = session.run(None, {"image": numpy.stack(images)[..., ::-1]})[0]
print(features.shape)
"""


def text(backbone: str, preprocessing: Preprocessing, files: Container[str]) -> str:
    """The script.

    Args:
      backbone: its name.
      preprocessing: of its images.
      files: what else the folder has: what decides who loads it.
    """
    head = '"""Features of images of people: python example.py IMAGE ..."""\n\n'
    if REID in files:
        return head + _REID
    if TIMM_CONFIG in files:
        return head + _TIMM
    values = {
        "SIZE": preprocessing.size,
        "MEAN": preprocessing.mean,
        "STD": preprocessing.std,
        "NETWORK": f'network.create("{backbone}"{_sized(backbone, preprocessing)})',
        "WIDTH_HEIGHT": preprocessing.size[::-1],
    }
    script = _OWN if "network.py" in files else _ONNX
    for name, value in values.items():
        script = script.replace(name, str(value))
    return head + script


def _sized(backbone: str, preprocessing: Preprocessing) -> str:
    return f", {preprocessing.size}" if backbone.startswith("vit") else ""

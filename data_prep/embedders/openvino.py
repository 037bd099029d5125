"""A network in OpenVINO's intermediate representation, on the CPU; needs the package `openvino`."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from cion_jax.common import image_options
from cion_jax.common.extras import needed
from cion_jax.common.image_network import ImageNetwork, Input
from data_prep.embedders import REGISTRY
from data_prep.embedders.common import EmbedderError
from data_prep.embedders.network import Network


@REGISTRY.add("openvino")
class OpenVino(Network):
    """`openvino:FILE.xml?OPTIONS`, with FILE.bin beside it.

    Intel's own models take `channels=bgr&range=255&mean=0&std=1`.
    """

    usage = "openvino:FILE"

    def __init__(self, argument: str):
        """Opens the files; raises EmbedderError where one is missing or unusable, or OpenVINO is."""
        file, how = image_options.parse(argument, "--embedder=openvino:FILE")
        weights = file.with_suffix(".bin")
        if file.suffix != ".xml" or not weights.is_file():
            raise EmbedderError(f"got {file}, expected FILE.xml and beside it FILE.bin with the weights")
        with needed("--embedder=openvino:FILE", "openvino"):
            import openvino
        core = openvino.Core()
        try:
            # In float32 everywhere: some processors would take bfloat16, and features depend on the machine.
            model = core.compile_model(core.read_model(file, weights), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise EmbedderError(f"{file} is not a usable OpenVINO model: {error}") from error
        if len(model.inputs) != 1:
            raise EmbedderError(f"{file} has {len(model.inputs)} inputs, expected one; convert it again")
        at = image_options.output_of(file, [port.any_name for port in model.outputs], how)
        digest = hashlib.sha256(file.read_bytes() + hashlib.sha256(weights.read_bytes()).digest()).hexdigest()
        takes = _input(model.inputs[0])
        super().__init__(ImageNetwork(f"openvino:{argument}", digest, takes, lambda x: _run(model, x, at), how))


def _input(port: Any) -> Input:
    shape = [side.get_length() if side.is_static else None for side in port.get_partial_shape()]
    return Input(shape, np.dtype(port.get_element_type().to_dtype()).name)


def _run(model: Any, x: np.ndarray, at: int) -> np.ndarray:
    return model(x)[model.outputs[at]]

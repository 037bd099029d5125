"""Any person re-identification network in ONNX form, on the CPU."""

from __future__ import annotations

from cion_jax.common.onnx_network import OnnxNetwork
from data_prep.embedders import REGISTRY
from data_prep.embedders.network import Network


@REGISTRY.add("onnx")
class Onnx(Network):
    """`onnx:FILE?OPTIONS`; a file whose weights lie in other files beside it is taken with them."""

    usage = "onnx:FILE"

    def __init__(self, argument: str):
        """Opens the file; raises as `OnnxNetwork`."""
        super().__init__(OnnxNetwork(argument, "--embedder=onnx:FILE", "prep"))

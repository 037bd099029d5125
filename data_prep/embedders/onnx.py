"""Any person re-identification network in ONNX form, on the CPU."""

from __future__ import annotations

from cion_jax.common import onnx_files, onnx_session
from data_prep.embedders import REGISTRY, options
from data_prep.embedders.network import Input, Network

_DTYPES = {"float16": "float16", "float": "float32", "double": "float64", "uint8": "uint8"}


@REGISTRY.add("onnx")
class Onnx(Network):
    """`onnx:FILE?OPTIONS`; a file whose weights lie in other files beside it is taken with them."""

    usage = "onnx:FILE"

    def __init__(self, argument: str):
        """Opens the file; raises EmbedderError or OnnxError where it or a file it refers to is missing or unusable."""
        file, how = options.parse(argument, "onnx")
        digest = onnx_files.digest(file)
        session = onnx_session.opened(file, "--embedder=onnx:FILE", "prep")
        output = session.outputs[options.output_of(file, session.outputs, how)]
        takes = Input(session.shape, _DTYPES.get(session.dtype, session.dtype))
        super().__init__(f"onnx:{argument}", digest, takes, lambda x: session.run(x, output), how)

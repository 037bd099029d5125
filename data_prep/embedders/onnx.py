"""Any person re-identification network in ONNX form, on the CPU."""

from __future__ import annotations

from typing import Any

from cion_jax.common import onnx_files
from cion_jax.common.extras import needed
from data_prep.embedders import REGISTRY, options
from data_prep.embedders.common import EmbedderError
from data_prep.embedders.network import Input, Network

_DTYPES = {"float16": "float16", "float": "float32", "double": "float64", "uint8": "uint8"}
_SILENT = 4  # severity from which on ONNX Runtime speaks; what it raises is told


@REGISTRY.add("onnx")
class Onnx(Network):
    """`onnx:FILE?OPTIONS`; a file whose weights lie in other files beside it is taken with them."""

    usage = "onnx:FILE"

    def __init__(self, argument: str):
        """Opens the file; raises EmbedderError where it, or a file it refers to, is missing or unusable."""
        file, how = options.parse(argument, "onnx")
        runtime = _runtime()
        try:
            digest = onnx_files.digest(file)
        except onnx_files.OnnxFileError as error:
            raise EmbedderError(str(error)) from error
        settings = runtime.SessionOptions()
        settings.log_severity_level = _SILENT
        try:
            session = runtime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise EmbedderError(f"{file} is not a usable ONNX model: {error}") from error
        inputs, outputs = session.get_inputs(), [each.name for each in session.get_outputs()]
        output = outputs[options.output_of(file, outputs, how)]
        if len(inputs) != 1:
            raise EmbedderError(f"{file} has {len(inputs)} inputs, expected one; export it again")
        name = inputs[0].name
        super().__init__(
            f"onnx:{argument}", digest, _input(inputs[0]), lambda x: session.run([output], {name: x})[0], how
        )


def _input(port: Any) -> Input:
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    return Input([side if isinstance(side, int) else None for side in port.shape], _DTYPES.get(kind, kind))


def _runtime() -> Any:
    with needed("--embedder=onnx:FILE", "prep"):
        import onnxruntime
    onnxruntime.set_default_logger_severity(_SILENT)
    return onnxruntime

"""Any person re-identification network in ONNX form, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        digest = _digest(file)
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


def _digest(file: Path) -> str:
    """SHA-256 of a model: of its file, or of all its files where it keeps weights in others."""
    content = file.read_bytes()
    digest = hashlib.sha256(content)
    for place in sorted(set(_external(file, content))):
        path = file.parent / place
        if not path.is_file():
            raise EmbedderError(
                f"{file} keeps its weights in {place}, which is not beside it; copy both into one folder, or export "
                "it as one file (torch.onnx.export(..., external_data=False))"
            )
        with path.open("rb") as data:
            digest.update(f"{place} {hashlib.file_digest(data, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def _external(file: Path, content: bytes) -> Iterator[str]:
    """The files, relative to the model's own, that hold its weights."""
    with needed("--embedder=onnx:FILE", "prep"):
        import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise EmbedderError(f"{file} is not a usable ONNX model: {error}") from error
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        tensors = list(getattr(graph, "initializer", ()))
        for attribute in (each for node in graph.node for each in node.attribute):
            tensors += [attribute.t, *attribute.tensors]
            graphs += [attribute.g] * attribute.HasField("g") + list(attribute.graphs)
        for tensor in tensors:
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")

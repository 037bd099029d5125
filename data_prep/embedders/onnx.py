"""Any person re-identification network in ONNX form, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cion_jax.common import onnx_session
from cion_jax.common.extras import needed
from data_prep.embedders import REGISTRY, options
from data_prep.embedders.common import EmbedderError
from data_prep.embedders.network import Input, Network

_DTYPES = {"float16": "float16", "float": "float32", "double": "float64", "uint8": "uint8"}


@REGISTRY.add("onnx")
class Onnx(Network):
    """`onnx:FILE?OPTIONS`; a file whose weights lie in other files beside it is taken with them."""

    usage = "onnx:FILE"

    def __init__(self, argument: str):
        """Opens the file; raises EmbedderError or OnnxError where it or a file it refers to is missing or unusable."""
        file, how = options.parse(argument, "onnx")
        digest = _digest(file)
        session = onnx_session.opened(file, "--embedder=onnx:FILE", "prep")
        output = session.outputs[options.output_of(file, session.outputs, how)]
        takes = Input(session.shape, _DTYPES.get(session.dtype, session.dtype))
        super().__init__(f"onnx:{argument}", digest, takes, lambda x: session.run(x, output), how)


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

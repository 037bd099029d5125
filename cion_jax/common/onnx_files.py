"""ONNX files as what they are: a model may keep its weights in other files beside its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cion_jax.common import checksums
from cion_jax.common.errors import UserError
from cion_jax.common.extras import needed


class OnnxFileError(UserError):
    """A file that is no model in ONNX form, or only a part of one."""


def digest(file: Path) -> str:
    """SHA-256 of a model: of its file, or of all its files where it keeps weights in others.

    Raises:
      OnnxFileError: it is none, or a file that it refers to is missing.
      ChecksumError: it is not what the digest beside it is of.
    """
    checksums.check(file)
    content = file.read_bytes()
    found = hashlib.sha256(content)
    for place in sorted(set(_external(file, content))):
        path = file.parent / place
        if not path.is_file():
            raise OnnxFileError(
                f"{file} keeps its weights in {place}, which is not beside it; copy both into one folder, or export "
                "it as one file (torch.onnx.export(..., external_data=False))"
            )
        with path.open("rb") as data:
            found.update(f"{place} {hashlib.file_digest(data, 'sha256').hexdigest()}".encode())
    return found.hexdigest()


def _external(file: Path, content: bytes) -> Iterator[str]:
    """The files, relative to the model's own, that hold its weights."""
    with needed("reading ONNX files", "onnx"):
        import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise OnnxFileError(f"{file} is not a usable ONNX model: {error}") from error
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        tensors = list(getattr(graph, "initializer", ()))
        for attribute in (each for node in graph.node for each in node.attribute):
            tensors += [attribute.t, *attribute.tensors]
            graphs += [attribute.g] * attribute.HasField("g") + list(attribute.graphs)
        for tensor in tensors:
            yield from (entry.value for entry in tensor.external_data if entry.key == "location")

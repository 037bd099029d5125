"""A file with weights, whatever wrote it: opened, one network of it chosen by the model's names, read, made to fit."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cion_jax.common import checksums
from cion_jax.common.printable import printable
from cion_jax.weights import parts, safetensors_file, state_dict, torch_file, torch_names
from cion_jax.weights.adapt import adapt
from cion_jax.weights.state_dict import Network
from cion_jax.weights.torch_names import MisfitError, WeightsError

_SHOWN, _LONGEST = 5, 10_000  # of a sort of misfits, in the message; signs of one, in the file
_NOT_WEIGHTS = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself: git lfs pull",
    b"<!DOCTYPE": "a web page; the download went wrong, open its address in a browser",
    b"<html": "a web page; the download went wrong, open its address in a browser",
    **dict.fromkeys(
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd"),
        "a compressed archive; unpack it first",
    ),
    b"{": "a text in JSON, expected a file of torch.save or safetensors, or an index whose name ends in .index.json",
    b"\x89HDF": "an HDF5 file of Keras or the like; expected a file of torch.save or safetensors",
}


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds; no number of it is read yet.

    Attributes:
      path: as it was given, for messages.
      label: of the state dict to take, as `FILE#LABEL` names it; empty: the one that fits.
      saved: containers with tensors in them.
      metadata: texts of a safetensors file.
    """

    path: str
    label: str
    saved: Any
    metadata: Mapping[str, str]

    def network(
        self, params: dict, stats: dict, size: tuple[int, int], network: Network = "teacher"
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Reads the network that fits a model; says on stderr what was taken, cast, resized and left out.

        Args:
          params, stats: trees of arrays or shapes of the model's backbone.
          size: (height, width) of the images that it is wanted for.
          network: which one, of a file with several.

        Returns:
          (backbone, head) under PyTorch's names without a prefix; the head is empty where the file has none.

        Raises:
          WeightsError, TorchFileError: none that fits, or it is damaged or not finite.
        """
        shapes, derived = torch_names.expected(params, stats)
        try:
            found = state_dict.choose(self.saved, shapes, network, self.label)
            backbone, said = adapt(found.backbone, shapes, derived, size)
            head, _ = adapt(found.head, {name: tensor.shape for name, tensor in found.head.items()}, (), size)
        except WeightsError as error:
            raise WeightsError(f"{self.path} cannot be used: {error}") from error
        if jax.process_index() == 0:
            for line in filter(None, (found.said, *said)):
                print(f"{self.path}: {line}", file=sys.stderr)
        return backbone, head


def open_weights(path: str | Path) -> WeightsFile:
    """Opens a file of torch.save or a safetensors file, by what is in it, or several by their index.

    Args:
      path: of the file, or of an index (`weights.parts`); `FILE#LABEL` takes one certain state dict of it.

    Raises:
      WeightsError, TorchFileError: no such file, or none that holds weights.
      ChecksumError: it is not what the digest beside it is of.
    """
    file, label = Path(path), ""
    if not file.exists() and "#" in str(path):
        name, _, label = str(path).rpartition("#")
        file = Path(name)
    if not file.is_file():
        what = "is no regular file" if file.exists() else "does not exist"
        raise WeightsError(f"{file} {what}; expected a training workdir, or a PyTorch or safetensors file")
    checksums.check(file)
    if parts.is_index(file):
        return WeightsFile(str(file), label, parts.open_index(file, _part), {})
    parts.refuse_one_of_several(file)
    return _open(file, label)


def _part(file: Path) -> Mapping[str, Any]:
    """Tensors by name of one of several files."""
    checksums.check(file)
    saved = _open(file, "").saved
    if not isinstance(saved, Mapping):
        raise WeightsError(f"{file} holds no tensors by name, as one of several files does")
    return saved


def _open(file: Path, label: str) -> WeightsFile:
    _refuse_other_kinds(file)
    if safetensors_file.is_safetensors(file):
        saved, metadata = safetensors_file.open_file(file)
        return WeightsFile(str(file), label, saved, metadata)
    return WeightsFile(str(file), label, torch_file.open_file(file), {})


def map_names(
    named: dict[str, np.ndarray], params: dict, stats: dict, ignore: Iterable[str], path: str
) -> tuple[dict, dict]:
    """`torch_names.from_torch` for the weights of a file: the message has its name, and names a list of all misfits."""
    try:
        return torch_names.from_torch(named, params, stats, ignore=ignore)
    except MisfitError as error:
        raise WeightsError(f"{path}: {error}{_list_all(path, error.misfits)}") from error
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _refuse_other_kinds(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(32)
    if not head:
        raise WeightsError(f"{path} is empty; get it anew")
    for start, what in _NOT_WEIGHTS.items():
        if head.lower().startswith(start.lower()):
            raise WeightsError(f"{path} is {what}")


def _list_all(path: str, misfits: Mapping[str, list[str]]) -> str:
    """Writes all misfits into a file beside the weights, or in the folder for temporary files, and says where."""
    if all(len(lines) <= _SHOWN for lines in misfits.values()):
        return ""
    text = "".join(
        f"{sort}: {printable(line, _LONGEST)}\n" for sort, lines in misfits.items() for line in sorted(lines)
    )
    for folder in (Path(path).parent, Path(tempfile.gettempdir())):
        listed = folder / f"{Path(path).name}.misfits.txt"
        try:
            listed.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return f"\n  all of them are listed in {listed}"
    return ""

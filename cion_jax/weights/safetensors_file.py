"""Safetensors files, opened within bounds: tensors are read when they are used."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from cion_jax.common.printable import printable
from cion_jax.weights.torch_names import WeightsError

_HEADER = 2**24  # bytes; a checkpoint of 1,000 tensors needs 100,000
_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "BOOL": np.bool_},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8},
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, not yet read.

    Attributes:
      path: of the file.
      name: in it.
      shape, dtype: of the numbers.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    file: Any

    def array(self) -> np.ndarray:
        """The numbers; raises WeightsError where they cannot be read."""
        try:
            return self.file.get_tensor(self.name)
        except Exception as error:  # of the library, NumPy or the machine's memory: the file made it so
            raise WeightsError(f"{self.path}: {printable(self.name)} cannot be read ({printable(error)})") from error


def is_safetensors(path: Path) -> bool:
    """Whether it says so by its name, or begins as such a file does: 8 bytes of a length, then JSON."""
    if path.suffix == ".safetensors":
        return True
    with open(path, "rb") as file:
        head = file.read(10)
    return head[8:] == b'{"' and int.from_bytes(head[:8], "little") <= path.stat().st_size


def open_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata of a file.

    Raises:
      WeightsError: it is damaged or no such file: lengths, offsets, gaps, overlaps (all checked by the library), a
        header of more than 16 MB, two tensors of one name.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is no regular file; expected a safetensors file")
    try:
        _check_header(path)
        file = safetensors.safe_open(path, "numpy")
        slices = {name: file.get_slice(name) for name in list(file.keys())}
        tensors = {name: _tensor(path, name, found, file) for name, found in slices.items()}
        return tensors, file.metadata() or {}
    except WeightsError as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error
    except Exception as error:  # of the library, of JSON or of the machine's memory: the file made it so
        raise WeightsError(f"{path} is no safetensors file: {printable(error)}") from error


def _tensor(path: Path, name: str, found: Any, file: Any) -> Tensor:
    if found.get_dtype() not in _DTYPES:
        raise WeightsError(f"{printable(name)} has numbers of the kind {found.get_dtype()}; save it as F32")
    return Tensor(path, name, tuple(found.get_shape()), np.dtype(_DTYPES[found.get_dtype()]), file)


def _check_header(path: Path) -> None:
    """What the library does not look at: a length that costs memory, and names that stand there twice."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_HEADER, path.stat().st_size):
            raise WeightsError(f"its header has {length:,} bytes, more than the file or than {_HEADER:,}")
        json.loads(file.read(length), object_pairs_hook=_no_pair_twice)


def _no_pair_twice(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise WeightsError(f"it has {printable(name)} twice")
        made[name] = value
    return made

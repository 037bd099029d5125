"""Weights in several files: the index that Hugging Face's libraries write beside them says which tensor is in which."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cion_jax.common.files import read_regular
from cion_jax.common.printable import printable, some
from cion_jax.weights.torch_names import WeightsError

_LARGEST = 2**24  # bytes of an index; one of 1,000 tensors has 100,000
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")


def is_index(path: Path) -> bool:
    """Whether a file is an index, by its name: `model.safetensors.index.json`, `pytorch_model.bin.index.json`."""
    return path.name.endswith(".index.json")


def open_index(path: Path, open_part: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Tensors by name, of all files that an index names; none is read yet.

    Args:
      path: of the index.
      open_part: f(path of a file beside it) -> its tensors by name.

    Raises:
      WeightsError: it is no index, a file is missing, or lacks a tensor that the index has in it.
    """
    where = _weight_map(path)
    files = sorted(set(where.values()))
    if gone := [name for name in files if not (path.parent / name).is_file()]:
        raise WeightsError(f"{path}: {some(gone)} of {len(files)} files are not beside it; copy all into one folder")
    parts = {name: open_part(path.parent / name) for name in files}
    if lacking := [name for name, file in where.items() if name not in parts[file]]:
        raise WeightsError(f"{path}: {some(lacking)} are not in the files that it names; get all files anew")
    return {name: parts[file][name] for name, file in where.items()}


def refuse_one_of_several(path: Path) -> None:
    """Raises WeightsError where a file is one of several beside which their index lies."""
    match = _PART.fullmatch(path.name)
    index = path.with_name(f"{match[1]}{match[3]}.index.json") if match else path
    if match and int(match[2]) > 1 and index.is_file():
        raise WeightsError(f"{path} is one of {int(match[2])} files of one network; give their index, {index}")


def _weight_map(path: Path) -> dict[str, str]:
    """Name of a tensor -> name of a file in the folder of the index."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} bytes")
        found = json.loads(read_regular(path))["weight_map"]
        if not found or not all(isinstance(file, str) for file in found.values()):
            raise ValueError("it names no files")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is no index of weights: {printable(error)}") from error
    if outside := [file for file in found.values() if Path(file).name != file or file in ("", "..")]:
        raise WeightsError(f"{path} names {some(outside)}; expected names of files beside it")
    return found

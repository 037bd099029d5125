"""Reads what `torch.save` wrote, without PyTorch and without running anything that the file says.

Both formats hold a pickle of nested containers, and the tensors' storages beside it as raw bytes: as members of a zip
archive (PyTorch 1.6 and newer), or one after the other behind the pickle (before). A pickle names functions and classes
to call. Here the few names that tensors need are answered by our own functions, and every other name by an inert
placeholder; nothing is ever imported. The layout is that of `torch/serialization.py`.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from cion_jax.common.errors import UserError

_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class TorchFileError(UserError):
    """The file is damaged, of another kind, or of a machine with another byte order."""


class Inert:
    """Stands for an object whose class is not ours to run: it takes whatever the pickle does to it and keeps nothing.

    Attributes:
      name: of the class or function, as the file spells it.
    """

    name = ""

    def __new__(cls, *_, **__):
        """Takes any arguments."""
        return super().__new__(cls)

    def __init__(self, *_, **__):
        pass

    def __repr__(self):
        return f"<{self.name}, not loaded>"

    def __setstate__(self, _):
        pass

    def __setitem__(self, _, __):
        pass

    def append(self, _):
        """Forgets the item."""

    def extend(self, _):
        """Forgets the items."""

    def add(self, _):
        """Forgets the item."""


def read(path: str | Path) -> Any:
    """Reads a file of `torch.save`.

    Args:
      path: .pt or .pth file. Those of PyTorch 1.6 and newer are mapped, not read: the bytes of a tensor are fetched
        when it is used, so an optimizer's state costs nothing.

    Returns:
      What was saved: dicts, lists, tuples, numbers and text as they are, tensors and parameters as read-only NumPy
      arrays (views of their storages, with their strides), objects of any other class as `Inert`.

    Raises:
      TorchFileError: no file of `torch.save`, a damaged one, or a big-endian one.
    """
    path = Path(path)
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except (FileNotFoundError, TorchFileError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise TorchFileError(f"{path} is no readable file of torch.save: {type(error).__name__}: {error}") from error


class _Function:
    """One of our functions under a name of the pickle, which can call it, but change nothing about it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args):
        return self._call(*args)

    def __setstate__(self, _):
        raise TorchFileError("the file sets the state of a function; no file of torch.save does")


class _Storage(NamedTuple):
    """A storage's class, as a thing that cannot be called."""

    dtype: np.dtype


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storage: Callable[..., np.ndarray] | None = None):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: the file's names are looked up here."""
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _Storage(_DTYPES[name])
        functions: dict[str, Callable] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch.Size": tuple,
        }
        if f"{module}.{name}" in functions:
            return _Function(functions[f"{module}.{name}"])
        return type("Inert", (Inert,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        """A storage; before PyTorch 1.6 also the class of a module, with its source text."""
        if pid[0] == "module":
            return pid[1]
        kind, of, key, _, count, *view = pid
        if self._storage is None or kind != "storage" or not isinstance(of, _Storage) or any(view):
            raise TorchFileError(f"the file refers to {pid!r}, expected a storage of numbers")
        return self._storage(of.dtype, str(key), int(count))


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_) -> np.ndarray:
    """A view of a storage; offset and strides count elements. Refuses what would look beyond the storage."""
    if min((offset, *shape, *strides)) < 0 or len(shape) != len(strides):
        raise TorchFileError(f"a tensor of shape {shape} has the strides {strides} and the offset {offset}")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if last >= storage.size:
        raise TorchFileError(f"a tensor of shape {shape} ends at element {last}, its storage has {storage.size}")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
        if "data.pkl" not in members:
            raise TorchFileError(f"{path} is a zip archive without data.pkl, so not of torch.save")
        if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
            raise TorchFileError(f"{path} is of a big-endian machine; save it anew on a little-endian one")
        whole = np.memmap(path, np.uint8, "r").view(np.ndarray)

        def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
            member, size = members.get(f"data/{key}"), count * dtype.itemsize
            if member is None or member.compress_type != zipfile.ZIP_STORED or not 0 <= size <= member.file_size:
                raise TorchFileError(f"{path} lacks the storage {key} of {count} {dtype.name}, or holds it compressed")
            start = _start(whole, member)
            return whole[start : start + size].view(dtype)

        with archive.open(members["data.pkl"]) as pickled:
            return _Unpickler(pickled, storage).load()  # type: ignore[arg-type]


def _start(whole: np.ndarray, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: behind its local header, of 30 bytes and two fields of any length."""
    name, extra = struct.unpack_from("<2H", whole.data, member.header_offset + 26)
    return member.header_offset + 30 + name + extra


def _read_legacy(path: Path) -> Any:
    size = path.stat().st_size
    storages: dict[str, np.ndarray] = {}

    def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
        if not 0 <= count * dtype.itemsize <= size:
            raise TorchFileError(f"{path} has {size} bytes, too few for a storage of {count} {dtype.name}")
        # Filled below: the bytes come behind the pickle that refers to them.
        return storages.setdefault(key, np.zeros(count, dtype))

    with open(path, "rb") as file:
        if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
            raise TorchFileError(f"{path} is not of torch.save")
        if not _Unpickler(file).load()["little_endian"]:
            raise TorchFileError(f"{path} is of a big-endian machine; save it anew on a little-endian one")
        saved = _Unpickler(file, storage).load()
        for key in _Unpickler(file).load():
            array = storages[str(key)]
            (count,) = struct.unpack("<q", file.read(8))
            data = file.read(array.nbytes)
            if count != array.size or len(data) != array.nbytes:
                raise TorchFileError(f"{path} is cut off in storage {key}")
            array[:] = np.frombuffer(data, array.dtype)
    return saved

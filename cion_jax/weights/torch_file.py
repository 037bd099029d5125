"""Reads what `torch.save` wrote, without PyTorch and without running anything that the file says.

Both formats hold a pickle of nested containers, and the tensors' storages beside it as raw bytes: as members of a zip
archive (PyTorch 1.6 and newer), or one after the other behind the pickle (before). The pickle is run by a machine of
its own (`common.pickles`). Files are mapped: the bytes of a tensor are fetched when it is used. A zip archive has a
checksum of every member; the older format has none. The layout is that of `torch/serialization.py`.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from cion_jax.common import pickles
from cion_jax.common.pickles import Global, Inert, Machine, PickleError
from cion_jax.common.printable import printable

__all__ = ["Inert", "Tensor", "TorchFileError", "damaged_members", "is_zip", "open_file", "read"]

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
_DIRECTORY = 2**24  # bytes of an archive's list of members: 180,000 of them
_PICKLE = 2**26  # bytes
_RANK = 32  # dimensions
_SHARED, _SPARE = 4, 2**24  # all tensors together may have 4 times the bytes of the file, and 16 MB


class TorchFileError(PickleError):
    """The file is damaged, of another kind, or of a machine with another byte order."""


class Storage:
    """Numbers in a file that tensors are views of.

    Attributes:
      dtype: of the numbers.
      count: how many.
    """

    def __init__(self, dtype: np.dtype, count: int, fetch: Callable[[], np.ndarray]):
        """Takes a function that maps the bytes; it is called once, when the first tensor is used."""
        self.dtype, self.count, self._fetch = dtype, count, fetch
        self._bytes: np.ndarray | None = None

    def bytes(self) -> np.ndarray:
        """[count * size of a number] uint8, read-only; raises TorchFileError where the checksum is another."""
        if self._bytes is None:
            self._bytes = self._fetch()
        return self._bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, not yet read; offset and strides count elements.

    Attributes:
      storage: the numbers.
      offset: of its first element.
      shape, strides: one number a dimension.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Of its numbers."""
        return self.storage.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that a copy takes; a dimension of 0 counts as one, since the others have bounds as well."""
        return math.prod(max(1, of) for of in self.shape) * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """The numbers, read-only; raises TorchFileError where they are damaged."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        size = self.dtype.itemsize
        # Any stride may stand where there is one element; NumPy takes none that is beyond its integers.
        steps = tuple(stride * size if of > 1 else size for stride, of in zip(self.strides, self.shape, strict=True))
        return np.ndarray(self.shape, self.dtype, self.storage.bytes(), self.offset * size, steps)


def read(path: str | Path) -> Any:
    """Reads a file of `torch.save`.

    Args:
      path: .pt or .pth file.

    Returns:
      What was saved: dicts, lists, tuples, numbers and text as they are, tensors and parameters as read-only NumPy
      arrays (views of the file, with their strides), objects of any other class as `Inert`.

    Raises:
      TorchFileError: no file of `torch.save`, a damaged one, or a big-endian one.
      FileNotFoundError: no file.
    """
    path = Path(path)
    done: dict[int, Any] = {}  # by id: what several containers hold is made once

    def arrays(thing: Any) -> Any:
        if id(thing) not in done:
            done[id(thing)] = _map_items(arrays, thing)
        return done[id(thing)]

    return arrays(open_file(path))


def open_file(path: str | Path) -> Any:
    """The same as `read`, with a `Tensor` for every tensor: nothing of the numbers is read or checked yet."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise TorchFileError(f"{path} is no regular file; expected one of torch.save")
    opened = _open_zip if is_zip(path) else _open_legacy
    return _guarded(path, lambda: opened(path))


def damaged_members(path: Path) -> list[str]:
    """What is wrong with the members of a zip archive, a line each; empty for the older format, without checksums."""
    if not is_zip(path):
        return []
    archive, wrong = _guarded(path, lambda: _Archive(path)), []
    for name in archive.members:
        try:
            archive[name]
        except TorchFileError as error:
            wrong.append(str(error))
    return wrong


def is_zip(path: Path) -> bool:
    """Whether it begins as an archive does, which those of PyTorch 1.6 and newer are."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def _guarded(path: Path, work: Callable[[], Any]) -> Any:
    """What `work` gives; whatever a damaged file makes it raise becomes one line with the file's name."""
    try:
        return work()
    except FileNotFoundError:
        raise
    except PickleError as error:
        raise TorchFileError(f"{path} cannot be used: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        said = f"{type(error).__name__}: {printable(error)}"
        raise TorchFileError(f"{path} is no readable file of torch.save ({said}); get it anew") from error


def _map_items(change: Callable[[Any], Any], thing: Any) -> Any:
    if isinstance(thing, Tensor):
        return thing.array()
    if isinstance(thing, dict):
        return type(thing)((key, change(value)) for key, value in thing.items())
    if isinstance(thing, list | tuple):
        return type(thing)(change(item) for item in thing)
    return thing


class _Tensors:
    """Makes the tensors of one file, within bounds.

    Args:
      path: of the file, whose size is the measure.
      storage: makes the storage of (dtype, key, count).
    """

    def __init__(self, path: Path, storage: Callable[[np.dtype, str, int], Storage]):
        self._room = _SHARED * path.stat().st_size + _SPARE
        self._storage = storage

    def machine(self) -> Machine:
        """One that knows the functions of PyTorch's pickles that make tensors."""
        machine = Machine(
            {
                "collections.OrderedDict": _ordered,
                "torch._utils._rebuild_tensor": self.tensor,
                "torch._utils._rebuild_tensor_v2": self.tensor,
                "torch._utils._rebuild_parameter": lambda data, *_: data,
                "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
                "torch._tensor._rebuild_from_type_v2": lambda function, _, arguments, *__: machine.call(
                    function, arguments
                ),
                "torch.Size": lambda sizes=(): sizes,
            },
            self.storage,
        )
        return machine

    def storage(self, pid: Any) -> Any:
        """A storage; before PyTorch 1.6 also the class of a module, with its source text."""
        if type(pid) is not tuple or len(pid) < 2:
            raise TorchFileError("it refers to something that is no storage")
        if pid[0] == "module":
            return pid[1]
        kind, of, key, _, count, *view = pid if len(pid) > 4 else (None,) * 5
        dtype = _DTYPES.get(of.name.rpartition(".")[2]) if isinstance(of, Global) else None
        if type(kind) is not str or kind != "storage" or type(count) is not int or type(key) not in (str, int):
            raise TorchFileError("it refers to something that is no storage")
        if dtype is None or of.name.rpartition(".")[0] not in ("torch", "torch.storage"):
            raise TorchFileError(
                f"it refers to a storage of {pickles.kind_of(of)}, expected one of {', '.join(_DTYPES)}"
            )
        if view not in ([], [None]) or count < 0:
            raise TorchFileError(f"its storage {printable(key)} is a view or of a negative length")
        return self._storage(dtype, printable(key), count)

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        """A view of a storage; refuses what would look beyond it."""
        numbers = (offset, *shape, *strides) if type(shape) is tuple and type(strides) is tuple else (None,)
        if type(storage) is not Storage or any(type(number) is not int for number in numbers):
            raise TorchFileError("it makes a tensor of something that is no storage, no shape or no strides")
        if min(numbers) < 0 or len(shape) != len(strides) or len(shape) > _RANK or max(numbers) >= 2**63:
            raise TorchFileError(
                f"it has a tensor of shape {printable(shape)} with the strides {printable(strides)} and the offset "
                f"{offset}"
            )
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.count:
            raise TorchFileError(
                f"it has a tensor of shape {printable(shape)} that ends at element {last}, its storage has "
                f"{storage.count}"
            )
        tensor = Tensor(storage, offset, shape, strides)
        self._room -= tensor.nbytes
        if self._room < 0:
            raise TorchFileError("its tensors have far more numbers than the file")
        return tensor


def _ordered(items: Any = ()) -> OrderedDict:
    made: OrderedDict = OrderedDict()
    if type(items) not in (list, tuple) or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in items):
        raise TorchFileError("it makes an ordered dict of something that is no list of pairs")
    pickles.fill(made, items)
    return made


class _Bounded(io.FileIO):
    """A file that is never read in pieces larger than an archive's list of members may be."""

    def read(self, size: int | None = -1) -> bytes:
        """As a file's; raises TorchFileError."""
        if size is not None and size > _DIRECTORY:
            raise TorchFileError(f"it is an archive whose list of members has {size:,} bytes, more than {_DIRECTORY:,}")
        return super().read(_DIRECTORY if size is None or size < 0 else size)


class _Archive:
    """The members of a zip archive of `torch.save`, which compresses none of them.

    Attributes:
      members: by their names behind the archive's own.
    """

    def __init__(self, path: Path):
        """Raises TorchFileError: two of one name, a compressed one, more bytes in them than in the file."""
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
        self.members = {member.filename.partition("/")[2]: member for member in listed}
        _refuse_other_archives(self.members)
        if len(self.members) != len(listed):
            raise TorchFileError("it has two members of one name")
        self._whole = np.memmap(path, np.uint8, "r").view(np.ndarray)
        if any(member.compress_type != zipfile.ZIP_STORED for member in listed):
            raise TorchFileError("it has compressed members, which torch.save never writes")
        if sum(member.file_size for member in listed) > self._whole.size:
            raise TorchFileError("its members have more bytes than the file")

    def __getitem__(self, name: str) -> np.ndarray:
        """The bytes of a member; raises TorchFileError where the checksum is another."""
        found = self._bytes(self.members[name])
        if zlib.crc32(found.data) != self.members[name].CRC:
            raise TorchFileError(f"its member {printable(name)} is damaged (its CRC-32 is another); get the file anew")
        return found

    def _bytes(self, member: zipfile.ZipInfo) -> np.ndarray:
        """They begin behind the local header, of 30 bytes and two fields of any length."""
        head = self._whole[member.header_offset : member.header_offset + 30].tobytes()
        if len(head) < 30 or head[:4] != b"PK\3\4" or member.compress_size != member.file_size:
            raise TorchFileError(f"it has no member {printable(member.filename)} where its list says")
        start = member.header_offset + 30 + sum(struct.unpack_from("<2H", head, 26))
        found = self._whole[start : start + member.file_size]
        if found.size != member.file_size:
            raise TorchFileError(f"it is cut off in {printable(member.filename)}")
        return found


def _refuse_other_archives(names: Iterable[str]) -> None:
    """TorchScript's archives hold code, which we do not run."""
    if any(name == "constants.pkl" or name.startswith("code/") for name in names):
        raise TorchFileError(
            "it is a TorchScript archive, a program with its weights; save its weights alone, in PyTorch: "
            'torch.save(torch.jit.load(FILE, map_location="cpu").state_dict(), "weights.pth")'
        )
    if "data.pkl" not in names:
        raise TorchFileError("it is a zip archive without data.pkl, so not of torch.save")


def _open_zip(path: Path) -> Any:
    archive = _Archive(path)
    if "byteorder" in archive.members and archive["byteorder"].tobytes() != b"little":
        raise TorchFileError("it is of a big-endian machine; save it anew on a little-endian one")
    if archive.members["data.pkl"].file_size > _PICKLE:
        raise TorchFileError(f"its pickle has more than {_PICKLE:,} bytes")

    def storage(dtype: np.dtype, key: str, count: int) -> Storage:
        name, size = f"data/{key}", count * dtype.itemsize
        if name not in archive.members or size > archive.members[name].file_size:
            raise TorchFileError(f"it lacks the storage {key} of {count} {dtype.name}")
        return Storage(dtype, count, lambda: _guarded(path, lambda: archive[name][:size]))

    machine = _Tensors(path, storage).machine()
    return machine.run(io.BytesIO(archive["data.pkl"].tobytes()))


def _open_legacy(path: Path) -> Any:
    whole = np.memmap(path, np.uint8, "r").view(np.ndarray)
    storages: dict[str, Storage] = {}
    starts: dict[str, int] = {}

    def storage(dtype: np.dtype, key: str, count: int) -> Storage:
        def fetch() -> np.ndarray:
            return whole[starts[key] :][: count * dtype.itemsize]

        found = storages.setdefault(key, Storage(dtype, count, fetch))
        if (found.dtype, found.count) != (dtype, count):
            raise TorchFileError(f"it has two storages {key}")
        return found

    with open(path, "rb") as opened, _mapped(opened) as file:
        head = [Machine({}, _no_storage).run(file) for _ in range(3)]
        if head[:2] != [_LEGACY_MAGIC, _LEGACY_PROTOCOL] or type(head[2]) is not dict:
            raise TorchFileError("it is not of torch.save")
        if head[2].get("little_endian") is not True:
            raise TorchFileError("it is of a big-endian machine; save it anew on a little-endian one")
        saved = _Tensors(path, storage).machine().run(file)
        keys, at = Machine({}, _no_storage).run(file), file.tell()
    if type(keys) is not list or any(type(key) not in (str, int) for key in keys):
        raise TorchFileError("it has no list of storages")
    for key in map(str, keys):
        at = starts[key] = _end_of_count(whole, at, storages.get(key), key)
        at += storages[key].count * storages[key].dtype.itemsize
    if storages.keys() != starts.keys() or at != whole.size:
        raise TorchFileError("it is cut off, or has more or fewer storages than it uses")
    return saved


def _mapped(file: BinaryIO) -> mmap.mmap:
    """The part of a file where its pickles have to be; a length that a damaged one states reads no more than that."""
    return mmap.mmap(file.fileno(), min(os.fstat(file.fileno()).st_size, _PICKLE), access=mmap.ACCESS_READ)


def _end_of_count(whole: np.ndarray, at: int, storage: Storage | None, key: str) -> int:
    """Where a storage's numbers begin, behind their count at `at`; raises where they are not all there."""
    if storage is None:
        raise TorchFileError(f"it has a storage {printable(key)} that no tensor uses")
    start = at + 8
    if start + storage.count * storage.dtype.itemsize > whole.size:
        raise TorchFileError(f"it is cut off in storage {printable(key)}")
    if struct.unpack("<q", whole[at:start].tobytes()) != (storage.count,):
        raise TorchFileError(f"its storage {printable(key)} has another length than its tensors say")
    return start


def _no_storage(_: Any) -> Any:
    raise TorchFileError("it refers to a storage where none can be")

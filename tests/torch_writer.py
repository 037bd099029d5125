"""Writes files as `torch.save` does, without PyTorch: a pickle with globals spelled by hand, storages beside it."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {
    **{"float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"},
    **{"int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage"},
    **{"uint8": "ByteStorage", "bool": "BoolStorage"},
}


class Named:
    """A global of any module and name; the module need not exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """REDUCE: the pickle calls `function(*arguments)`, then sets `state` on the result where one is given."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = function, arguments, state


class Storage:
    """Bytes that tensors share."""

    def __init__(self, array):
        self.array = np.ascontiguousarray(array).reshape(-1)


def tensor(array, storage=None, offset=0, shape=None, strides=None):
    """What the pickle of a tensor calls; strides and offset count elements."""
    array = np.asarray(array)
    storage = storage or Storage(array)
    shape = array.shape if shape is None else shape
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    return Call(Named("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, OrderedDict())


def parameter(array):
    """What the pickle of a parameter calls."""
    return Call(Named("torch._utils", "_rebuild_parameter"), tensor(array), True, OrderedDict())


def namespace(**state):
    """An argparse.Namespace, as every released checkpoint holds one."""
    return Call(Named("copyreg", "_reconstructor"), Named("argparse", "Namespace"), None, None, state=state)


class _Pickler(pickle._Pickler):
    """The pickler in Python, of which opcodes can be written by hand."""

    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.legacy, self.keys = legacy, {}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        key = self.keys.setdefault(id(obj), (str(len(self.keys)), obj))[0]
        kind = Named("torch", STORAGES[obj.array.dtype.name])
        return ("storage", kind, key, "cuda:0", obj.array.size, *([None] if self.legacy else []))

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)

    def storages(self):
        return [(key, storage.array) for key, storage in self.keys.values()]


def state_dict(arrays, make=tensor):
    """An ordered dict of tensors."""
    return OrderedDict((name, make(array)) for name, array in arrays.items())


def save(path, saved, byteorder="little"):
    """The zip format."""
    pickled = io.BytesIO()
    pickler = _Pickler(pickled, legacy=False)
    pickler.dump(saved)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, array in pickler.storages():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def save_legacy(path, saved, little_endian=True):
    """The format before PyTorch 1.6."""
    pickled = io.BytesIO()
    pickler = _Pickler(pickled, legacy=True)
    pickler.dump(saved)
    with open(path, "wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little_endian}):
            pickle.dump(head, file, protocol=2)
        file.write(pickled.getvalue())
        pickle.dump([key for key, _ in pickler.storages()], file, protocol=2)
        for _, array in pickler.storages():
            file.write(struct.pack("<q", array.size) + array.tobytes())

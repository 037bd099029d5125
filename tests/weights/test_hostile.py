"""Weights files made to harm: one line of refusal, soon, whatever they ask for."""

import gzip
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from cion_jax.common import pickles
from cion_jax.weights import safetensors_file, torch_file, weights_file
from cion_jax.weights.torch_file import TorchFileError
from cion_jax.weights.torch_names import WeightsError
from tests import torch_writer as writer

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def text(words):
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def name(module, of):
    return f"c{module}\n{of}\n".encode()


def put(path, body, members=(), compression=zipfile.ZIP_STORED):
    """An archive whose pickle does `body`."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        for member, data in members:
            archive.writestr(f"archive/{member}", data)
    return path


def doubling(empty, pair):
    """60 containers, each with the one before in it twice."""
    return empty + b"".join(b"q%c0" % i + pair(b"%c" % i) for i in range(60))


def twice_a_tuple(i):
    return b"h" + i + b"h" + i + b"\x86"


def twice_a_list(i):
    return b"](h" + i + b"h" + i + b"e"


STORAGE = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x04tQ"
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def tensor(storage, offset, shape, strides):
    numbers = [b"(" + b"".join(b"I%d\n" % number for number in numbers) + b"t" for numbers in (shape, strides)]
    return REBUILD + b"(" + storage + b"I%d\n" % offset + numbers[0] + numbers[1] + b"\x89}tR"


EXPANDED = tensor(STORAGE, 0, (4,), (0,))
BODIES = {
    "a tensor as storage": (tensor(EXPANDED, 0, (4,), (1,)), "something that is no storage"),
    "bytes as storage": (tensor(b"U\x04abcd", 0, (1,), (1,)), "something that is no storage"),
    "a tensor beyond its storage": (tensor(STORAGE, 1, (4,), (1,)), "ends at element 4, its storage has 4"),
    "a storage beyond its member": (tensor(STORAGE.replace(b"K\x04", b"K\x05"), 0, (5,), (1,)), "lacks the storage 0"),
    "endless expansion": (tensor(STORAGE, 0, (10**15,), (0,)), "far more numbers than the file"),
    "many expansions": (b"(" + tensor(STORAGE, 0, (10**6,), (0,)) * 9 + b"t", "far more numbers than the file"),
    "a shape of no numbers": (tensor(STORAGE, 0, (2**70,), (0,)), "a tensor of shape"),
    "endless and empty": (tensor(STORAGE, 0, (0, 2**61), (1, 1)), "far more numbers than the file"),
    "many dimensions": (tensor(STORAGE, 0, (1,) * 40, (1,) * 40), "a tensor of shape"),
    "lists that double, as a reference": (doubling(b"]", twice_a_list) + b"Q", "no storage"),
    "lists that double, in a reference": (
        b"(" + text("storage") + doubling(b"]", twice_a_list) + b"K\1K\1K\1tQ",
        "a storage of a list",
    ),
    "tuples that double, as a name": (b"}(" + doubling(b")", twice_a_tuple) + b"K\1u", "a tuple as a name"),
    "tuples in each other": (b")" + b"\x85" * 10**6, "100 deep"),
    "lists in each other": (b"]" + b"".join(b"q%c](h%ce" % (i % 256, i % 256) for i in range(300)), "100 deep"),
    "a list that is filled from within": (b"]q\0]q\1h\0ah\0h\1a", "puts items into a list"),
    "an unknown call of a call": (name("a", "b") + b")R)R", "not callable"),
    "a name twice": (b"}(" + text("w") + b"K\1" + text("w") + b"K\2u", "the name w twice"),
    "numbers of any length": (b"\x8b" + struct.pack("<i", 10**5) + b"\1" * 10**5, "LONG4"),
    "no end": (b"(" * 100, "IndexError|pop from empty"),
    "marks in each other": (b"(" * 10**6, "begins containers within each other"),
    "nothing below": (b"0", "IndexError"),
    "memory": (b"h\7", "KeyError"),
    "terminal escapes": (name("\x1b[31mevil", "x") + b"}b", r"\\x1b\[31mevil"),
    "terminal escapes of an object": (name("\x1b[31mevil", "x") + b")R)R", r"\\x1b\[31mevil"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_pickle_that_harms_is_refused(tmp_path, kind):
    body, message = BODIES[kind]
    path = put(tmp_path / "saved.pth", body, [("data/0", np.arange(4, dtype="f4").tobytes())])
    with pytest.raises(TorchFileError, match=message) as error:
        torch_file.read(path)
    said = str(error.value)
    assert str(path) in said
    assert said.isprintable()
    assert len(said) < 600


def test_a_stride_of_one_element_may_be_any(tmp_path):
    body = tensor(STORAGE, 3, (1, 1), (2**62, 1))
    data = np.arange(4, dtype="f4")
    assert torch_file.read(put(tmp_path / "saved.pth", body, [("data/0", data.tobytes())])).tolist() == [[3]]


def test_indices_of_the_memo_take_no_memory(tmp_path):
    assert torch_file.read(put(tmp_path / "saved.pth", b"]r" + struct.pack("<I", 2**31 - 1))) == []


@pytest.mark.parametrize(("limit", "bound"), [("OPERATIONS", 30), ("CONTAINERS", 5)])
def test_operations_and_containers_are_counted(tmp_path, monkeypatch, limit, bound):
    path = tmp_path / "saved.pth"
    writer.save(path, {"a": writer.tensor(NUMBERS), "b": writer.tensor(NUMBERS)})
    torch_file.read(path)
    monkeypatch.setattr(pickles, limit, bound)
    with pytest.raises(TorchFileError, match=f"more than {bound} {limit.lower()}"):
        torch_file.read(path)


def test_what_several_hold_is_made_once(tmp_path):
    read = torch_file.read(put(tmp_path / "saved.pth", doubling(b"]", twice_a_list)))
    assert read[0] is read[1]


@pytest.mark.parametrize("member", ["data.pkl", "byteorder", "data/0"])
def test_members_that_swell_are_not_inflated(tmp_path, member):
    path = tmp_path / "saved.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for other in {"data.pkl", "byteorder", "data/0"} - {member}:
            archive.writestr(f"archive/{other}", b"\x80\x02N.")
        archive.writestr(f"archive/{member}", b"\0" * 10**6, zipfile.ZIP_DEFLATED)
    with pytest.raises(TorchFileError, match="compressed members"):
        torch_file.read(path)


def test_two_members_of_one_name(tmp_path):
    path = tmp_path / "saved.pth"
    writer.save(path, {"a": writer.tensor(NUMBERS)})
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", NUMBERS[::-1].tobytes())
    with pytest.raises(TorchFileError, match="two members of one name"):
        torch_file.read(path)


def test_a_long_list_of_members_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "saved.pth"
    writer.save(path, {"a": writer.tensor(NUMBERS)})
    monkeypatch.setattr(torch_file, "_DIRECTORY", 100)
    with pytest.raises(TorchFileError, match="list of members has"):
        torch_file.read(path)


def test_every_flipped_bit_of_a_tensor_is_noticed(tmp_path):
    path = tmp_path / "saved.pth"
    writer.save(path, writer.state_dict({"w": NUMBERS}))
    whole = path.read_bytes()
    at = whole.find(NUMBERS.tobytes())
    for bit in range(0, NUMBERS.nbytes * 8, 37):
        damaged = bytearray(whole)
        damaged[at + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(TorchFileError, match="data/0 is damaged"):
            torch_file.read(path)


def legacy(path, body, keys, data):
    with open(path, "wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(head, file, protocol=2)
        file.write(b"\x80\x02" + body + b".")
        pickle.dump(keys, file, protocol=2)
        file.write(data)
    return path


@pytest.mark.parametrize(
    ("keys", "data", "message"),
    [
        (["0"], struct.pack("<q", 4) + b"1234" * 3, "cut off in storage 0"),
        (["0"], struct.pack("<q", 3) + b"1234" * 4, "another length"),
        (["0"], struct.pack("<q", 4) + b"1234" * 5, "more or fewer storages"),
        ([], b"", "more or fewer storages"),
        (["0", "1"], struct.pack("<q", 4) + b"1234" * 4, "a storage 1 that no tensor uses"),
        ({"0": 1}, b"", "no list of storages"),
    ],
)
def test_storages_of_the_older_format(tmp_path, keys, data, message):
    body = tensor(STORAGE, 0, (4,), (1,))
    good = legacy(tmp_path / "good.pth", body, ["0"], struct.pack("<q", 4) + b"1234" * 4)
    assert torch_file.read(good).tobytes() == b"1234" * 4
    with pytest.raises(TorchFileError, match=message):
        torch_file.read(legacy(tmp_path / "saved.pth", body, keys, data))


def header(path, text, data=b""):
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


ENTRY = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
BEYOND = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
OVER = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
OVERLAP = json.dumps({"w": OVER, "v": OVER | {"data_offsets": [4, 12]}}).encode()
GAP = json.dumps({"w": OVER | {"data_offsets": [4, 12]}}).encode()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(struct.pack("<Q", 2**60) + b"{}"), "header has"),
        (lambda path: header(path, b"[" * 10**5), "safetensors file"),
        (lambda path: header(path, f'{{"w": {ENTRY}, "w": {ENTRY}}}'.encode(), b"1234"), "w twice"),
        (lambda path: header(path, BEYOND, b"1234"), "safetensors file"),
        (lambda path: header(path, OVERLAP, b"1234" * 3), "safetensors file"),
        (lambda path: header(path, GAP, b"1234" * 3), "safetensors file"),
    ],
)
def test_safetensors_that_harm(tmp_path, make, message):
    path = tmp_path / "w.safetensors"
    make(path)
    with pytest.raises(WeightsError, match=message) as error:
        safetensors_file.open_file(path)
    assert str(error.value).isprintable()


def test_what_is_no_file_of_weights_at_all(tmp_path):
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    (tmp_path / "page.pth").write_text("<!doctype html><p>404")
    (tmp_path / "empty.pth").write_text("")
    (tmp_path / "index.json").write_text('{"weight_map": {}}')
    (tmp_path / "packed.pth").write_bytes(gzip.compress(b"x"))
    said = {
        "index.json": "a text in JSON",
        "packed.pth": "unpack it",
        "pointer.pth": "git lfs pull",
        "page.pth": "a web page",
        "empty.pth": "is empty",
        "..": "no regular file",
    }
    for file, message in said.items():
        with pytest.raises(WeightsError, match=message):
            weights_file.open_weights(tmp_path / file)
    with pytest.raises(TorchFileError, match="no regular file"):
        torch_file.read("/dev/zero")


def test_safetensors_under_another_name_are_known_by_what_is_in_them(tmp_path):
    safetensors.numpy.save_file({"w": NUMBERS}, tmp_path / "pytorch_model.bin")
    opened = weights_file.open_weights(tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(opened.saved["w"].array(), NUMBERS)

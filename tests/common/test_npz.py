"""Files of arrays that somebody else made: damaged, swelling, with pickles in them."""

import io
import zipfile

import numpy as np
import pytest

from cion_jax.common import npz


def member(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


ROWS = member(np.ones((2, 4), np.float32))
FILES = {
    "empty": b"",
    "text": b"hello",
    "one array": ROWS,
    "pickle": member(np.array([{}, 1], object), allow_pickle=True),
    "more than it holds": header((10**6, 10**6)),
    "negative": header((-2, 4)),
    "bomb": header((10, 10**6)) + bytes(4 * 10**7),
    "encrypted": (b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    "another compression": (b"\x14\x03\x14\x00\x00\x00\x08", b"\x14\x03\x14\x00\x00\x00\x63"),
}


def packed(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("features.npy", content)


def test_what_numpy_writes_is_read(tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", keys=np.array(["a", "ü"]), features=np.eye(2))
        assert npz.names(tmp_path / "a.npz") == ["keys", "features"]
        assert npz.read(tmp_path / "a.npz", "keys").tolist() == ["a", "ü"]
        np.testing.assert_array_equal(npz.read(tmp_path / "a.npz", "features"), np.eye(2))


@pytest.mark.parametrize("kind", FILES)
def test_what_is_none_is_refused(tmp_path, kind):
    path, content = tmp_path / "a.npz", FILES[kind]
    if isinstance(content, tuple):
        packed(path, ROWS)
        path.write_bytes(path.read_bytes().replace(*content))
    elif kind in ("empty", "text", "one array"):
        path.write_bytes(content)
    else:
        packed(path, content)
    with pytest.raises(ValueError, match=r"damaged|plain array|swell|features"):
        npz.read(path, "features")


def test_a_flipped_bit_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.ones(1000))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[4000] ^= 4
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ValueError, match="CRC"):
        npz.read(tmp_path / "a.npz", "features")

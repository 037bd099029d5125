"""Sizes from headers, and the limit that keeps a small file from taking all memory."""

import struct
import time

import cv2
import numpy as np
import pytest

from cion_jax.common import images

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("quality", [80, 101])  # 101: lossless WebP
def test_the_header_says_the_size(suffix, quality):
    options = [cv2.IMWRITE_WEBP_QUALITY, quality] if suffix == ".webp" else []
    assert images.size(cv2.imencode(suffix, PICTURE, options)[1].tobytes()) == (48, 24)


def test_no_header_no_size():
    assert [images.size(data) for data in (b"", b"text", b"\xff\xd8", b"\xff\xd8\xff\xd9" * 9)] == [None] * 4


def test_a_picture_that_claims_too_much_is_refused_before_it_is_decoded(monkeypatch):
    data = bytearray(images.encode_jpeg(PICTURE))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 20000, 20000)
    with pytest.raises(images.PictureError, match="20000 x 20000 pixels, expected at most 100,000,000"):
        images.decode(bytes(data))
    monkeypatch.setenv(images.MAX_PIXELS_VARIABLE, "1000")
    with pytest.raises(images.PictureError, match="24 x 48 pixels, expected at most 1,000"):
        images.decode(images.encode_jpeg(PICTURE))


def test_what_is_of_no_known_kind_is_not_even_tried():
    """OpenCV would read these by their content, whatever their size."""
    big = b"P4\n30000 30000\n" + bytes(100)
    tiff = cv2.imencode(".tiff", PICTURE)[1].tobytes()
    for data in (big, tiff, b"GIF89a" + bytes(40)):
        with pytest.raises(images.PictureError, match="expected a whole JPEG, PNG, WebP or BMP"):
            images.decode(data)


def test_old_bitmaps_have_sides_of_16_bits():
    pixels = b"".join(row.tobytes() for row in PICTURE[::-1, :, ::-1])
    header = b"BM" + struct.pack("<IHHI", 26 + len(pixels), 0, 0, 26) + struct.pack("<IHHHH", 12, 24, 48, 1, 24)
    assert images.size(header + pixels) == (48, 24)
    np.testing.assert_array_equal(images.decode(header + pixels), PICTURE)


def test_headers_of_any_length_take_no_time():
    began = time.monotonic()
    for filling in (b"\xff" * 2**24, b"\xff\xe0\x00\x02" * 2**22):
        with pytest.raises(images.PictureError):
            images.decode(b"\xff\xd8" + filling)
    assert time.monotonic() - began < 2


def exif(jpeg, orientation, order="<"):
    """A JPEG with an orientation as cameras write it: APP1, TIFF, one tag."""
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0
    )
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation(order):
    jpeg = images.encode_jpeg(np.zeros((16, 8, 3), np.uint8))
    assert images.orientation(jpeg) == 1
    assert images.orientation(exif(jpeg, 6, order)) == 6
    assert images.orientation(exif(jpeg, 77, order)) == 1
    assert images.orientation(exif(jpeg, 6, order)[:30]) == 1
    assert images.decode(exif(jpeg, 6, order)).shape == (16, 8, 3)

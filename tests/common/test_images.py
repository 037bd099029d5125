"""Sizes from headers, and the limit that keeps a small file from taking all memory."""

import struct

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

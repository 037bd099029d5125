"""Pictures that are not 8-bit RGB: what becomes of them is decided, not accidental."""

import io

import cv2
import numpy as np
import pytest

from cion_jax.common import images

Image = pytest.importorskip("PIL.Image")


def encoded(picture, kind, **how):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_grey_becomes_rgb(kind):
    np.testing.assert_allclose(images.decode(encoded(Image.new("L", (4, 8), 77), kind)), np.full((8, 4, 3), 77), atol=1)


def test_cmyk_becomes_rgb():
    decoded = images.decode(encoded(Image.new("CMYK", (16, 32), (0, 255, 255, 0)), "JPEG", quality=95))
    np.testing.assert_allclose(decoded, np.broadcast_to([255, 0, 0], (32, 16, 3)), atol=4)


def test_of_16_bits_the_upper_8_stay():
    _, data = cv2.imencode(".png", np.full((8, 4), 40_000, np.uint16))
    np.testing.assert_array_equal(images.decode(data.tobytes()), np.full((8, 4, 3), 40_000 >> 8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_rotation_is_ignored(kind):
    """Crops are cut from frames: a mark of the camera's position was copied along and means nothing any more."""
    picture = Image.new("RGB", (4, 8))
    mark = picture.getexif()
    mark[274] = 6  # a quarter turn
    assert images.decode(encoded(picture, kind, exif=mark)).shape == (8, 4, 3)

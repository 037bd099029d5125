"""Pictures from bytes and to bytes, strictly: a truncated picture is an error, never grey filling."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")  # what `decode` reads, in lower case
JPEG_MAGIC = b"\xff\xd8"
QUALITY = 95  # of the JPEGs that data_prep encodes itself


class PictureError(ValueError):
    """Bytes that are not one whole picture."""


def decode(data: bytes) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP or BMP.

    EXIF orientation and an alpha channel are ignored, grey pictures become RGB.

    Returns:
      [h, w, 3] uint8 RGB.

    Raises:
      PictureError: empty, truncated or not a picture; the message says which.
    """
    if not data:
        raise PictureError("the file is empty; expected a JPEG, PNG, WebP or BMP picture")
    if is_jpeg(data):
        try:
            return simplejpeg.decode_jpeg(data)
        except ValueError as error:
            raise PictureError(f"{error} ({len(data)} bytes); expected one whole JPEG") from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if picture is None:
        start = data[:8].hex(" ")
        raise PictureError(f"{len(data)} bytes starting {start}; expected a whole JPEG, PNG, WebP or BMP picture")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def is_jpeg(data: bytes) -> bool:
    """Whether these bytes start as a JPEG does."""
    return data.startswith(JPEG_MAGIC)


def encode_jpeg(crop: np.ndarray, quality: int = QUALITY) -> bytes:
    """[h, w, 3] uint8 RGB -> JPEG bytes, 4:4:4."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(crop), quality=quality)

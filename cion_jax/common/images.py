"""Pictures from bytes and to bytes, strictly: a truncated picture is an error, never grey filling."""

from __future__ import annotations

import os
import struct

import cv2
import numpy as np
import simplejpeg

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")  # what `decode` reads, in lower case
JPEG_MAGIC = b"\xff\xd8"
QUALITY = 95  # of the JPEGs that data_prep encodes itself
MAX_PIXELS = 100_000_000  # of a picture that is decoded: 300 MB
_MAX_SEGMENTS = 10_000  # of a JPEG before its picture, filling bytes included; no file comes near
_OLD_BMP = 12  # bytes of the header of OS/2's bitmaps, with sides of 16 bits
MAX_PIXELS_VARIABLE = "CION_MAX_PIXELS"  # of the environment, for another limit


_ORIENTATION, _ENTRIES = 0x0112, 100  # EXIF's tag, and how many tags are looked through


class PictureError(ValueError):
    """Bytes that are not one whole picture."""


def decode(data: bytes) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP or BMP.

    EXIF orientation and an alpha channel are ignored, grey pictures become RGB.

    Returns:
      [h, w, 3] uint8 RGB.

    Raises:
      PictureError: empty, truncated, not a picture, or of more than `max_pixels()`; the message says which.
    """
    check_size(data)
    if is_jpeg(data):
        try:
            return simplejpeg.decode_jpeg(data)
        except ValueError as error:
            raise PictureError(f"{error} ({len(data)} bytes); expected one whole JPEG") from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if picture is None:
        raise _no_picture(data)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def orientation(data: bytes) -> int:
    """EXIF orientation of a JPEG from the beginning of its bytes, 1 .. 8; 1, upright, where it states none."""
    at = data.find(b"Exif\0\0", 0, 1 << 16) + 6
    tiff = data[at : at + (1 << 16)] if at > 5 and is_jpeg(data) else b""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(min(count, _ENTRIES)):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def check_size(data: bytes) -> None:
    """Looks at a picture's header before anything of its size is made; a few kilobytes can claim gigabytes.

    Raises:
      PictureError: empty, not of a kind that `decode` reads, or of more than `max_pixels()`.
    """
    if not data:
        raise PictureError("the file is empty; expected a JPEG, PNG, WebP or BMP picture")
    claimed = size(data)
    if claimed is None:
        raise _no_picture(data)
    height, width = claimed
    if height * width > max_pixels():
        raise PictureError(
            f"the header says {width} x {height} pixels, expected at most {max_pixels():,} in all; where such pictures "
            f"are meant, set {MAX_PIXELS_VARIABLE} to more"
        )


def _no_picture(data: bytes) -> PictureError:
    start = data[:8].hex(" ")
    return PictureError(f"{len(data)} bytes starting {start}; expected a whole JPEG, PNG, WebP or BMP picture")


def max_pixels() -> int:
    """How many pixels a picture may have: `MAX_PIXELS`, or what the environment says."""
    said = os.environ.get(MAX_PIXELS_VARIABLE, "")
    return int(said) if said.isdecimal() else MAX_PIXELS


def size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that a picture's header claims, without decoding it; None where no header is understood."""
    if is_jpeg(data):
        return _jpeg_size(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return struct.unpack(">II", data[16:24])[::-1]
    if data.startswith(b"BM") and len(data) >= 26:
        if int.from_bytes(data[14:18], "little") == _OLD_BMP:
            return struct.unpack("<HH", data[18:22])[::-1]
        width, height = struct.unpack("<ii", data[18:26])
        return abs(height), abs(width)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Of the largest start-of-frame segment: a thumbnail or a second one behind it must not hide it."""
    at, found = 2, []
    for _ in range(_MAX_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD9, 0xDA):
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            found.append(struct.unpack(">HH", data[at + 5 : at + 9]))
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return max(found, key=lambda hw: hw[0] * hw[1], default=None)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return height & 0x3FFF, width & 0x3FFF


def is_jpeg(data: bytes) -> bool:
    """Whether these bytes start as a JPEG does."""
    return data.startswith(JPEG_MAGIC)


def encode_jpeg(crop: np.ndarray, quality: int = QUALITY) -> bytes:
    """[h, w, 3] uint8 RGB -> JPEG bytes, 4:4:4."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(crop), quality=quality)


def stretched(crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w, 3] uint8 -> [height, width, 3]: by area where both sides shrink (no aliasing), else bilinear."""
    shrinks = crop.shape[0] >= height and crop.shape[1] >= width
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

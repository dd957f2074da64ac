"""JPEGs straight to arrays, for those that need nothing else that Pillow does; the others are left to it.

Every marker before the picture's data is looked at. What is unusual in any way is no business of this file: it returns
None, and Pillow reads the file or says what is wrong with it.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from mmpretrain.models.images_mmpretrain import turn

FACTORS = (8, 4, 2)  # by which libjpeg can shrink while it decodes, at the speed of its plain decoding

_START, _SCAN = 0xD8, 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, by Huffman; others are lossless or arithmetic
_TABLES = (0xC4, 0xDB, 0xDD)  # Huffman, quantization, restart interval
_APPLICATIONS = range(0xE0, 0xF0)
_EXIF, _PAGES, _COMMENT = 0xE1, 0xE2, 0xFE
_TAGS = (b"\x01\x12", b"\x12\x01", b"rientation")  # without one of these in it, EXIF and XMP turn nothing
_VERSIONED, _VERSION_END = (b"JFIF", b"Adobe"), 7  # segments with a version in bytes 5 and 6
_HEAD = 8  # bytes of a frame's segment before its components


@dataclass(frozen=True)
class JpegHeader:
    """What a plain JPEG says of itself. components: 1 (grey) or 3."""

    height: int
    width: int
    components: int


def jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG that :func:`jpeg_pixels` may read; None of anything else.

    That is 8 bits of grey or three colors, upright, of one picture.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    place, frame, turned = 2, None, False
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        segment = data[place + 4 : place + 2 + length]
        place += 2 + length
        if length < 2 or place > len(data):
            return None
        if marker == _SCAN:
            return None if frame is None or (turned and not _upright(data)) else frame
        if marker in _FRAMES and frame is None:
            frame = _frame(segment)
        elif marker == _EXIF:
            turned = turned or any(tag in segment for tag in _TAGS)
        elif not _harmless(marker, segment):
            return None
    return None


def jpeg_pixels(data: bytes, header: JpegHeader, channels: int, factor: int = 1) -> np.ndarray | None:
    """uint8 [h, w, channels] of a JPEG with this header: Pillow's own values, or None where Pillow must decide.

    factor: one of FACTORS, by which the picture is shrunk while it is decoded (each side rounded up), or 1.
    """
    grey = header.components == 1 and channels == 1
    height, width = -(-header.height // factor), -(-header.width // factor)
    least = {} if factor == 1 else {"min_height": height, "min_width": width}
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", **least)
    except ValueError:  # as strict as it is, also for what viewers pass over
        return None
    if pixels.shape[:2] != (height, width):
        return None
    if channels == 1 and not grey:
        return np.array(Image.fromarray(pixels).convert("L"))[:, :, None]
    return pixels


def _harmless(marker: int, segment: bytes) -> bool:
    if marker == _PAGES:
        return not segment.startswith(b"MPF\0")
    if segment.startswith(_VERSIONED) and len(segment) < _VERSION_END:  # which libjpeg passes over, and Pillow refuses
        return False
    return marker in _TABLES or marker == _COMMENT or marker in _APPLICATIONS


def _frame(segment: bytes) -> JpegHeader | None:
    if len(segment) < _HEAD or segment[0] != 8 or segment[5] not in (1, 3):
        return None
    height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    return JpegHeader(height, width, segment[5]) if height and width else None


def _upright(data: bytes) -> bool:
    """Whether Pillow, which reads EXIF and XMP, would turn it."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return turn(image) is None
    except Exception:  # whatever is wrong, Pillow says it again where it counts
        return False

"""Bytes become objects only here, through the table ``DECODERS``: extension -> decoder. No pickle, no code.

Every decoder checks sizes before it allocates: encoded bytes first, then what the header promises. Anything unfit
raises :class:`SampleError`, so that the stream can replace the sample. No torch here.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmpretrain.config.data import Kind

Raw = Image.Image | str | np.ndarray

MAX_ENCODED_BYTES = 64 << 20
MAX_PIXELS = 50_000_000
MAX_TEXT_BYTES = 1 << 20
MAX_LABEL_DIGITS = 18
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")


class SampleError(Exception):
    """A sample that cannot be used; the message names the member and what is wrong with it."""


def decode(extension: str, data: bytes, kind: Kind) -> Raw:
    """The object that a member holds: an RGB, grey or palette image, a text, or a float32 array.

    extension: ``MODALITY.EXT`` as in the tar; kind: what the config says the modality is.
    Raises SampleError if no decoder is known for EXT, if it decodes another kind, or if the bytes are unfit.
    """
    suffix = extension.rpartition(".")[2].lower()
    if suffix not in DECODERS:
        raise SampleError(f"{extension}: no decoder for .{suffix}; there are decoders for {_known()}")
    decoder = DECODERS[suffix]
    if kind not in decoder.kinds:
        raise SampleError(f"{extension}: holds a {_either(decoder)}, but the config says {kind.value}")
    if len(data) > MAX_ENCODED_BYTES:
        raise SampleError(f"{extension}: has {len(data)} bytes, more than {MAX_ENCODED_BYTES}")
    try:
        return decoder.decode(data)
    except SampleError as error:
        raise SampleError(f"{extension}: {error}") from None
    except Exception as error:  # hostile bytes bring libraries to raise nearly anything
        raise SampleError(f"{extension}: {type(error).__name__}: {error}") from None


def decode_label(data: bytes, classes: int) -> int:
    """The class number in ``label.cls``. Raises SampleError unless it is a decimal integer in [0, classes)."""
    text = data.strip()
    if not text.isdigit() or len(text) > MAX_LABEL_DIGITS:
        raise SampleError(f"label.cls: {data[:20]!r} is not a class number")
    if int(text) >= classes:
        raise SampleError(f"label.cls: class {int(text)} is not below data.classes={classes}")
    return int(text)


def _image(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise SampleError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
    image.load()
    return image


def _text(data: bytes) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise SampleError(f"a text of {len(data)} bytes is longer than {MAX_TEXT_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SampleError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise SampleError("the text is empty")
    return text


def _array(data: bytes) -> np.ndarray:
    """A float32 array from .npy bytes: the header is read first and must account for every byte that follows."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise SampleError(f"npy version {version} is not read: write it with numpy.save")
    shape, fortran_order, dtype = _READ_HEADER[version](file)
    if dtype.kind not in "fiub" or dtype.hasobject:
        raise SampleError(f"an array of {dtype} is not numeric")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise SampleError(f"the header promises shape {shape} of {dtype}, but {len(data) - file.tell()} bytes follow")
    values = np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran_order else "C")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise SampleError("the array has values that are not finite in float32")
    return values


def _known() -> str:
    return ", ".join(f".{suffix} ({_either(decoder)})" for suffix, decoder in sorted(DECODERS.items()))


def _either(decoder: Decoder) -> str:
    return " or ".join(kind.value for kind in decoder.kinds)


@dataclass(frozen=True)
class Decoder:
    """What an extension may hold, and the function that decodes it."""

    kinds: tuple[Kind, ...]
    decode: Callable[[bytes], Raw]


_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

DECODERS = {
    **{suffix: Decoder((Kind.image,), _image) for suffix in ("jpeg", "jpg", "png", "webp")},
    "npy": Decoder((Kind.vector, Kind.sequence), _array),
    "txt": Decoder((Kind.text,), _text),
}

"""Arrays as numpy.save writes them, without pickle: vectors and sequences."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any

import numpy as np

from mmpretrain.data.decode import SampleError

LONGEST_KEPT = 256  # bytes of a header that is remembered; numpy.save writes 128
_FIRST_VERSION = b"\x93NUMPY\x01\x00"  # behind it stand two bytes with the header's length
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def decode(data: bytes) -> np.ndarray:
    """A float32 array from .npy bytes: the header is read first and must account for every byte that follows.

    Raises SampleError if it does not, and for values that are no finite numbers.
    """
    values = stored(data)
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise SampleError("the array has values that are not finite in float32")
    return values


def stored(data: bytes) -> np.ndarray:
    """The array of .npy bytes, of its own type and over the same memory. Raises SampleError as :func:`decode` does, but
    for values that are not finite."""
    head = bytes(data[: len(_FIRST_VERSION) + 2 + int.from_bytes(data[8:10], "little")])
    short = head.startswith(_FIRST_VERSION) and len(head) <= LONGEST_KEPT
    shape, fortran_order, dtype, start = _kept_header(head) if short else _header(data)
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise SampleError(f"the header promises shape {shape} of {dtype}, but {len(data) - start} bytes follow")
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran_order else "C")


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and where the values start."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise SampleError(f"npy version {version} is not read: write it with numpy.save")
    shape, fortran_order, dtype = _READ_HEADER[version](file)
    if dtype.kind not in "fiub" or dtype.hasobject:
        raise SampleError(f"an array of {dtype} is not numeric")
    return shape, fortran_order, dtype, file.tell()


# A header is a text of Python, and parsing it takes longer than all the rest; those of a modality are mostly equal.
_kept_header = lru_cache(maxsize=256)(_header)

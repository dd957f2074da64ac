"""Arrays as numpy.save writes them, without pickle: vectors and sequences."""

from __future__ import annotations

import io
import math

import numpy as np

from mmpretrain.data.decode import SampleError

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
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise SampleError(f"npy version {version} is not read: write it with numpy.save")
    shape, fortran_order, dtype = _READ_HEADER[version](file)
    if dtype.kind not in "fiub" or dtype.hasobject:
        raise SampleError(f"an array of {dtype} is not numeric")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise SampleError(f"the header promises shape {shape} of {dtype}, but {len(data) - file.tell()} bytes follow")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran_order else "C")

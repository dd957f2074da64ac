"""Vectors as rows of a table: their values alone, little-endian, without a header (data/column_shards.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpretrain.data.decode import SampleError

# Suffix of a member -> type of its values.
DTYPES: dict[str, np.dtype[Any]] = {"f16": np.dtype("<f2"), "f32": np.dtype("<f4")}


def decode_f16(data: bytes) -> np.ndarray:
    """A float32 vector from the bytes of float16 values. Raises SampleError for half a value, or one not finite."""
    return _decode(data, "f16")


def decode_f32(data: bytes) -> np.ndarray:
    """The same of float32 values."""
    return _decode(data, "f32")


def _decode(data: bytes, suffix: str) -> np.ndarray:
    dtype = DTYPES[suffix]
    if not data or len(data) % dtype.itemsize:
        raise SampleError(f"has {len(data)} bytes, which are no row of {dtype.name}")
    values = np.frombuffer(data, dtype).astype(np.float32)
    if not np.isfinite(values).all():
        raise SampleError("the row has values that are not finite")
    return values

"""Texts in UTF-8."""

from __future__ import annotations

from mmpretrain.data.decode import SampleError

MAX_BYTES = 1 << 20


def decode(data: bytes) -> str:
    """The text. Raises SampleError if it is too long, not UTF-8, or empty."""
    if len(data) > MAX_BYTES:
        raise SampleError(f"a text of {len(data)} bytes is longer than {MAX_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SampleError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise SampleError("the text is empty")
    return text

"""Texts in UTF-8."""

from __future__ import annotations

import codecs

from mmpretrain.data.decode import SampleError
from mmpretrain.models.texts_mmpretrain import clean, is_blank

MAX_BYTES = 1 << 20


def decode(data: bytes) -> str:
    """The text, without a byte order mark. Raises SampleError if it is too long, not UTF-8, or empty (see
    :func:`readable`)."""
    if len(data) > MAX_BYTES:
        raise SampleError(f"a text of {len(data)} bytes is longer than {MAX_BYTES}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SampleError("not UTF-8 but UTF-16, as its byte order mark says: save it as UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SampleError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    return readable(text)


def readable(text: str) -> str:
    """``text`` as encoders get it. Raises SampleError if there is nothing to read in it, or it is no text."""
    try:
        text = clean(text)
    except ValueError as error:
        raise SampleError(str(error)) from None
    if is_blank(text):
        raise SampleError(f"the text is empty{' (nothing in it is visible)' if text.strip() else ''}")
    return text

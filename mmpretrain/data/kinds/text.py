"""Texts in UTF-8."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from typing import Any

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


def decode_json(data: bytes, fields: Sequence[str]) -> list[list[str]]:
    """The texts of a JSON member: those of each field of its object, or, without fields, of the member itself.

    A field holds a string or a list of strings; blank ones are left out, and a field that is missing or null holds
    none. Raises SampleError for anything else.
    """
    content = json_content(data)
    if not fields:
        return [_texts("it", content)]
    if not isinstance(content, dict):
        raise SampleError(f"holds no JSON object, so it has no {fields[0]!r}")
    return [_texts(repr(name), content.get(name)) for name in fields]


def json_content(data: bytes) -> Any:
    """What a JSON member holds. Raises SampleError if it is too long or no JSON."""
    if len(data) > MAX_BYTES:
        raise SampleError(f"JSON of {len(data)} bytes is longer than {MAX_BYTES}")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SampleError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise SampleError(f"not JSON ({error})") from None


def _texts(what: str, value: Any) -> list[str]:
    texts = value if isinstance(value, list) else [] if value is None else [value]
    if isinstance(value, dict):
        keys = ", ".join(list(value)[:12])
        raise SampleError(f"{what} is an object with {keys}: name those of texts in data.modalities.NAME.field")
    if not all(isinstance(text, str) for text in texts):
        raise SampleError(f"{what} is {value!r:.80}, and a string or a list of strings is needed")
    return [readable(text) for text in texts if not is_blank(text)]

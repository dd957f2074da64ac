"""Texts in UTF-8."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

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
    return [decode(text.encode("utf-8", "surrogatepass")) for text in texts if text.strip()]

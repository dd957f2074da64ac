"""Cells of tables: which are gaps, names or written lists."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Iterable
from typing import Any

LONGEST_LIST = 100_000  # characters of one cell


def is_gap(value: Any) -> bool:
    """Whether a table has nothing there: None, or the NaN that some programs write instead."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def written_list(text: str) -> list[str] | None:
    """The texts of a list as JSON or as Python writes it into a cell; None if it is no such list."""
    found = written_entries(text)
    return found if found and all(isinstance(entry, str) for entry in found) else None


def written_entries(text: str) -> list[Any] | None:
    """The entries, of any type, of a list as JSON or as Python writes it into a cell; None if it is no such list."""
    text = text.strip()
    if len(text) > LONGEST_LIST or text[:1] != "[" or text[-1:] != "]":
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _python_list(text)
    return found if isinstance(found, list) else None


def _python_list(text: str) -> Any:
    """As ``str`` of a list. Not as NumPy's, whose texts without commas Python would join to one."""
    try:
        found = ast.literal_eval(text)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        texts = sum(isinstance(entry, str) for entry in found) if isinstance(found, list) else -1
        return found if sum(token.type == tokenize.STRING for token in tokens) == texts else None
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None


def as_name(value: Any) -> str:
    """A value as a name: numbers without a fraction as integers, whatever column of gaps made them floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def label_name(value: Any) -> str:
    """A label as a name; empty for none. A text 'none' is a name: only gaps of the table are not."""
    return "" if is_gap(value) else as_name(value)


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of their class numbers: integers by their size, everything else by name."""
    found = sorted(names)
    if all(name.removeprefix("-").isdecimal() for name in found):
        return tuple(sorted(found, key=int))
    return tuple(found)

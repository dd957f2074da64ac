"""What a cell of the column of labels says, by the form that labels have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmpretrain.data.writing import BuildError
from shards.sources.values import is_gap, label_name, written_list

SEPARATOR = "|"

Label = int | float | tuple[int, ...]
"""A class number, a measured value, or class numbers in their order."""


def class_names(value: Any) -> list[str] | None:
    """The classes that a cell names: of a list (also as JSON or Python write it) its entries, of a text what stands
    between ``|``. None for a gap; a list may be empty."""
    if is_gap(value):
        return None
    listed = written_list(value) if isinstance(value, str) else value
    if isinstance(value, str) and value.strip() == "[]":
        return []
    entries = listed if isinstance(listed, list) else str(value).split(SEPARATOR)
    return list(dict.fromkeys(name for entry in entries if (name := label_name(entry)))) or (
        [] if isinstance(listed, list) else None
    )


def several_of(value: Any, numbers: Mapping[str, int]) -> tuple[int, ...] | None:
    """Class numbers in their order; None where a sample has no label."""
    names = class_names(value)
    return None if names is None else tuple(sorted(numbers[name] for name in names))


def measured(where: str, value: Any) -> float | None:
    """A number; None for a gap. Raises BuildError for anything else."""
    if is_gap(value) or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise BuildError(f"{where}: label {str(value)[:40]!r} is no number, as --label-form value needs")
    return found


def written(label: Label) -> bytes:
    """A label as the member ``label.cls`` holds it."""
    return (str(list(label)) if isinstance(label, tuple) else repr(label)).encode()


def counted(label: Label) -> tuple[int, ...]:
    """The classes that a label counts for."""
    return label if isinstance(label, tuple) else (label,) if isinstance(label, int) else ()

"""What a cell of the column of labels says, by the form that labels have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmpretrain.data.writing import BuildError
from shards.sources.values import is_gap, label_name, written_entries

SEPARATOR = "|"

Label = int | float | tuple[int, ...]
"""A class number, a measured value, or class numbers in their order."""


def class_names(where: str, value: Any) -> list[str] | None:
    """The classes that a cell names: of a list (also as JSON or Python write it) its entries, of a text what stands
    between ``|``. None for a gap; a list may be empty.

    where: the cell lies, for messages. Raises BuildError for a text that begins as a list and is none, and for a list
    of anything but texts and numbers.
    """
    if is_gap(value):
        return None
    if not isinstance(value, list) and not str(value).lstrip().startswith("["):
        return _names(str(value).split(SEPARATOR)) or None
    entries = value if isinstance(value, list) else written_entries(str(value))
    if entries is None or not all(entry is None or isinstance(entry, str | int | float) for entry in entries):
        raise BuildError(
            f'{where}: label {str(value)[:40]!r} is no list of classes: write it as JSON, as ["Drama", "War"], or'
            f" with {SEPARATOR} between the classes"
        )
    return _names(entries)


def several_of(where: str, value: Any, numbers: Mapping[str, int]) -> tuple[int, ...] | None:
    """Class numbers in their order; None where a sample has no label. Raises as :func:`class_names` does."""
    names = class_names(where, value)
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


def _names(entries: list[Any]) -> list[str]:
    return list(dict.fromkeys(name for entry in entries if (name := label_name(entry))))

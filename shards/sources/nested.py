"""Values inside the objects of a column: ``sentences.raw`` of a table whose sentences are objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shards.sources.sample import Rows


@dataclass(frozen=True)
class NestedRows:
    """Rows with further columns, whose names say the way into others: ``COLUMN.KEY``, also of lists of objects."""

    rows: Rows
    nested: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """As Rows."""
        return (*self.rows.columns, *self.nested)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """As Rows."""
        asked = [name for name in self.nested if name in columns]
        whole = dict.fromkeys(_outer(name) if name in self.nested else name for name in columns)
        for number, where, row in self.rows.read(numbers, list(whole)):
            yield number, where, {**row, **{name: value_at(row, name) for name in asked}}

    def identity(self) -> list[Any]:
        """As Rows."""
        return self.rows.identity()


def with_nested(splits: Mapping[str, Rows], wanted: Iterable[str | None]) -> dict[str, Rows]:
    """The splits, with those of the wanted columns that lie inside others."""
    known = {name for rows in splits.values() for name in rows.columns}
    inside = tuple(dict.fromkeys(name for name in wanted if name and name not in known and _outer(name) in known))
    return {split: NestedRows(rows, inside) if inside else rows for split, rows in splits.items()}


def value_at(value: Any, way: str) -> Any:
    """What lies at the end of a way of keys; of lists one value per entry, without gaps. None for nothing."""
    if isinstance(value, list):
        found = [value_at(entry, way) for entry in value]
        return [
            text for entry in found if entry is not None for text in (entry if isinstance(entry, list) else [entry])
        ]
    if not isinstance(value, Mapping):
        return None
    key, dot, rest = way.partition(".")
    return value_at(value.get(key), rest) if dot else value.get(key)


def _outer(name: str) -> str:
    return name.partition(".")[0]

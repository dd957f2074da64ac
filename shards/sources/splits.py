"""Splits of tables: one file for each, or a column that says which a row belongs to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.writing import BuildError
from shards.sources.nested import with_nested
from shards.sources.sample import Rows
from shards.sources.values import label_name

NAMES = (
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
    | dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
)
"""What people call the splits."""
MOST = 20


@dataclass(frozen=True)
class PartOfRows:
    """Some of the rows of others. numbers: int64, ascending."""

    rows: Rows
    numbers: np.ndarray

    @property
    def columns(self) -> tuple[str, ...]:
        """As Rows."""
        return self.rows.columns

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """As Rows."""
        found = self.rows.read(self.numbers[numbers], columns)
        for number, (_, where, row) in zip(numbers.tolist(), found, strict=True):
            yield number, where, row

    def identity(self) -> list[Any]:
        """As Rows."""
        return [*self.rows.identity(), hashlib.sha256(self.numbers.tobytes()).hexdigest()]


def named_files(files: Sequence[str]) -> dict[str, list[str]]:
    """``FILE`` or ``SPLIT=FILE`` ... -> split -> files, in order; all of them are train where no split is named.

    Raises BuildError where some are named and others are not.
    """
    found: dict[str, list[str]] = {}
    for file in files:
        match = None if Path(file).exists() else re.fullmatch(r"([A-Za-z]\w*)=(.+)", file, re.DOTALL)
        found.setdefault(split_name(match[1]) if match else "", []).append(match[2] if match else file)
    if "" in found and len(found) > 1:
        raise BuildError(f"{found[''][0]}: of several splits each file is written SPLIT=FILE, as test={found[''][0]}")
    return {split or "train": paths for split, paths in _train_first(found).items()}


def split_name(name: str) -> str:
    """The name that this project has for a split, else its own. Raises BuildError for one that is no name."""
    known = NAMES.get(name.lower(), name)
    if not known.isidentifier():
        raise BuildError(f"{name!r} is no name of a split: use letters and digits")
    return known


def split_rows(rows: Rows, column: str, where: str) -> dict[str, Rows]:
    """The rows by what stands in ``column``. Raises BuildError: there is no such column, a row says nothing, or there
    are too many different values."""
    opened = with_nested({"train": rows}, [column])["train"]
    if column not in opened.columns:
        raise BuildError(f"{where} has no column {column!r}; it has {', '.join(opened.columns[:20])}")
    found: dict[str, list[int]] = {}
    for number, place, row in opened.read(np.arange(len(rows)), [column]):
        value = label_name(row.get(column))
        if not value:
            raise BuildError(f"{place}: column {column!r} says no split")
        found.setdefault(split_name(value), []).append(number)
        if len(found) > MOST:
            raise BuildError(f"column {column!r} of {where} has more than {MOST} different values: these are no splits")
    return {split: PartOfRows(rows, np.array(numbers)) for split, numbers in _train_first(found).items()}


def _train_first(splits: dict[str, Any]) -> dict[str, Any]:
    return {split: splits[split] for split in sorted(splits, key=lambda name: (name != "train", name))}

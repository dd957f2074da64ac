"""A sample as its source knows it, before anything is read; and the source as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmpretrain.config.sources import LabelForm
from shards.sources.keys import key_of_path, key_of_text
from shards.sources.labels import Label, measured, several_of
from shards.sources.values import as_name, is_gap, label_name, written_list

NO_CLASS = "-1"  # as `datasets` numbers what has no class


class MemberKind(StrEnum):
    """What a member of a sample holds."""

    image = "image"
    audio = "audio"
    text = "text"


@dataclass(frozen=True)
class Content:
    """What becomes one member: a file that is still to be read, bytes, or texts. One of the three is there."""

    kind: MemberKind
    path: Path | None = None
    data: bytes | None = None
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SourceSample:
    """contents: modality -> what it holds, absent ones left out. label: by the form of the source's labels. where: it
    lies, for messages."""

    key: str
    where: str
    contents: Mapping[str, Content]
    label: Label | None = None


class Rows(Protocol):
    """The samples of one split in a fixed order; pickled, every worker process opens it again."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names."""

    def __len__(self) -> int:
        """Number of rows."""

    def read(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """(number, where it lies, column -> value) of some rows; numbers: ascending int64."""

    def identity(self) -> list[Any]:
        """What changes when the rows do, as JSON."""


@dataclass(frozen=True)
class Column:
    """A column that becomes a modality. files: whether its texts are paths of files."""

    modality: str
    column: str
    kind: MemberKind
    files: bool = False
    lists: bool = False
    """Whether its texts are written lists of texts."""


@dataclass(frozen=True)
class Source:
    """Rows by split, and what their columns mean. Paths in rows are relative to ``root``.

    key: column of the keys; None: the path in the first column of files, else the row's number.
    label: column of the labels; classes: its names in the order of their numbers; numbered: whether the column
    holds these numbers already.
    """

    root: Path
    splits: Mapping[str, Rows]
    columns: tuple[Column, ...]
    key: str | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None
    numbered: bool = False
    label_form: LabelForm = LabelForm.one_class
    """What a cell of the column of labels is."""

    @property
    def key_columns(self) -> list[str]:
        """The columns that a key is made of."""
        if self.key is not None:
            return [self.key]
        return [column.column for column in self.columns if column.files][:1]

    @property
    def all_columns(self) -> list[str]:
        """Every column that a sample needs."""
        label = [self.label] if self.label is not None else []
        return list(dict.fromkeys([*self.key_columns, *(c.column for c in self.columns), *label]))

    def key_of(self, number: int, row: Mapping[str, Any]) -> str:
        """A row's key; several rows may have the same."""
        for column in self.key_columns:
            value = row.get(column)
            if value is not None and str(value).strip():
                is_path = self.key is None
                return key_of_path(str(value), self.root) if is_path else key_of_text(as_name(value))
        return f"{number:09d}"

    def label_of(self, row: Mapping[str, Any], where: str = "") -> Label | None:
        """A row's label, None if it has none. classes must be known. where: the row lies, for messages.

        Raises BuildError for a measured value that is no number.
        """
        if self.label is not None and self.label_form is LabelForm.value:
            return measured(where, row.get(self.label))
        if self.label is not None and self.label_form is LabelForm.several:
            return None if self.classes is None else several_of(where, row.get(self.label), self._numbers)
        name = label_name(row.get(self.label)) if self.label is not None else ""
        if not name or self.classes is None or (self.numbered and name == NO_CLASS):
            return None
        if self.numbered:
            return int(name)
        return self._numbers[name]

    @property
    def _numbers(self) -> dict[str, int]:
        known: dict[str, int] | None = self.__dict__.get("_known")
        if known is None:
            known = {name: number for number, name in enumerate(self.classes or ())}
            object.__setattr__(self, "_known", known)
        return known

    def sameness_of(self, number: int, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Equal for rows that say further texts of one sample: the same key, files and label. None where none can."""
        files = [column for column in self.columns if column.files]
        if not files or len(files) == len(self.columns) or any(row.get(column.column) is None for column in files):
            return None
        if any(column.kind is not MemberKind.text for column in self.columns if not column.files):
            return None  # bytes would have to be compared
        return self.key_of(number, row), *(str(row[c.column]) for c in files), self.label_of(row)

    def samples(self, split: str, numbers: np.ndarray) -> Iterator[tuple[int, SourceSample]]:
        """(number, sample) of some rows of a split; keys are not made unique yet."""
        for number, where, row in self.splits[split].read(numbers, self.all_columns):
            contents = {c.modality: made for c in self.columns if (made := self._content(c, row.get(c.column)))}
            yield number, SourceSample(self.key_of(number, row), where, contents, self.label_of(row, where))

    def _content(self, column: Column, value: Any) -> Content | None:
        """What a value stands for; None for nothing."""
        files = column.files
        if isinstance(value, Mapping):  # as `datasets` stores images and sounds
            files = value.get("bytes") is None
            value = value.get("path") if files else value["bytes"]
        if value is None or (files and value == ""):
            return None
        if isinstance(value, bytes):
            return Content(column.kind, data=value)
        if files:
            return Content(column.kind, path=located(self.root, str(value)))
        written = written_list(value) if column.lists and isinstance(value, str) else None
        texts = written or (value if isinstance(value, list) else [value])
        return Content(column.kind, texts=tuple(str(text) for text in texts if not is_gap(text)))


def located(root: Path, name: str) -> Path:
    """The file that a table names: below ``root`` or absolute, ``~`` expanded, with ``\\`` where Windows wrote it."""
    path = root / (os.path.expanduser(name) if name.startswith("~/") else name)
    if "\\" in name and not os.path.lexists(path):
        return root / name.replace("\\", "/")
    return path

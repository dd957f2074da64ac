"""Keys whose texts mean more than their type says: marked where the key is defined, read in config/typed.py."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any

_MARK = "meaning"


class Meaning(StrEnum):
    """What the text of a key stands for."""

    value = "value"
    """What its type says."""

    path = "path"
    """A file or folder (or a URL, or an id on the Hub): a leading ``~`` is the home folder."""

    minutes = "minutes"
    """A time in minutes, or as Slurm writes it."""

    shell = "shell"
    """Lines for a shell, handed on byte for byte."""


def marked(meaning: Meaning, default: Any = dataclasses.MISSING, **factory: Any) -> Any:
    """A dataclass field with a meaning. factory: ``default_factory``, instead of a default."""
    return dataclasses.field(default=default, metadata={_MARK: meaning}, **factory)


def meaning_of(entry: dataclasses.Field[Any]) -> Meaning:
    """What the text of a field stands for."""
    return Meaning(entry.metadata.get(_MARK, Meaning.value))

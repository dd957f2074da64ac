"""Keys whose texts mean more than their type says: marked where the key is defined, read in config/typed.py."""

from __future__ import annotations

from dataclasses import Field
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


PATH, MINUTES, SHELL = ({_MARK: meaning} for meaning in (Meaning.path, Meaning.minutes, Meaning.shell))
"""The ``metadata`` of a dataclass field with that meaning."""


def meaning_of(entry: Field[Any]) -> Meaning:
    """What the text of a field stands for."""
    return Meaning(entry.metadata.get(_MARK, Meaning.value))

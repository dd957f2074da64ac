"""What is marked where a key is defined: what its text means beyond its type (read in config/typed.py), and whether it
may change when a run goes on (read in config/changes.py)."""

from __future__ import annotations

from dataclasses import Field
from enum import StrEnum
from typing import Any

_MARK, _FREEDOM = "meaning", "freedom"


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


class Freedom(StrEnum):
    """Whether a key may have another value when a run goes on."""

    fixed = "fixed"
    """No: weights would become others."""

    free = "free"
    """Yes: weights, and which of them are released, do not depend on it."""

    rounding = "rounding"
    """Yes: the same sums are formed of other parts, or in another precision, so that weights are equal up to rounding
    and not bit for bit."""

    place = "place"
    """Yes, to another place of the same data or tokenizer: a checkpoint knows these by fingerprints."""

    measured = "measured"
    """Weights do not depend on it, but scores do: yes, unless ``evaluation.best.score`` chooses by them, or they are
    compared with those of the start (``finetune.before``)."""


PATH, MINUTES, SHELL = ({_MARK: meaning} for meaning in (Meaning.path, Meaning.minutes, Meaning.shell))
"""The ``metadata`` of a dataclass field with that meaning."""


FREE, PLACE, MEASURED, ROUNDING = (
    {_FREEDOM: freedom} for freedom in (Freedom.free, Freedom.place, Freedom.measured, Freedom.rounding)
)
"""The same of what may change when a run goes on; together with another mark as ``PATH | FREE``. On a section it holds
for all keys below."""


def freedom_of(entry: Field[Any]) -> Freedom:
    """Whether a field may change when a run goes on."""
    return Freedom(entry.metadata.get(_FREEDOM, Freedom.fixed))


def meaning_of(entry: Field[Any]) -> Meaning:
    """What the text of a field stands for."""
    return Meaning(entry.metadata.get(_MARK, Meaning.value))

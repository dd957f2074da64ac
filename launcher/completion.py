"""What a shell may add to a half-written ``group=choice`` or ``key=value`` when Tab is pressed (no torch here).

Typer asks here for what could stand in the place of the word at the cursor. bash takes ``=`` for the end of a word: it
shows ``method=cl`` as three words and replaces the last alone, so that answers must leave the key out there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from mmpretrain.config.choices import USER_CONFIGS, folders_of, names_in
from mmpretrain.config.compose import GROUPS
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.reference import Entry, sections
from mmpretrain.config.root import Config
from mmpretrain.config.shipped import CONFIGS

PARTS = "="


def complete(incomplete: str) -> list[tuple[str, str]]:
    """Words that may take the place of ``incomplete``, each with what it means."""
    token = _token(incomplete, os.environ)
    key, equals, value = token.partition(PARTS)
    if not equals:
        return _keys(token)
    found = [(name, meaning) for name, meaning in _values(key) if name.startswith(value)]
    whole = incomplete.startswith(f"{key}{PARTS}")
    return [(f"{key}{PARTS}{name}" if whole else name, meaning) for name, meaning in found]


def _token(incomplete: str, environment: Mapping[str, str]) -> str:
    """The whole token at the cursor; of bash's pieces of it ``incomplete`` is the last."""
    pieces = environment.get("COMP_WORDS", "").split("\n")[: int(environment.get("COMP_CWORD", -1)) + 1]
    match pieces:
        case [*_, key, "="]:
            return f"{key}="
        case [*_, key, "=", value] if value == incomplete:
            return f"{key}={value}"
    return incomplete


def _keys(start: str) -> list[tuple[str, str]]:
    """Groups, keys and sections that begin so, one level at a time; where a single one does, what is in it."""
    found = {f"{group}{PARTS}": "a file of choices" for group in GROUPS if group.startswith(start)}
    for entry in _entries():
        if entry.key.startswith(start):
            end = entry.key.find(".", len(start)) + 1
            word, meaning = (entry.key[:end], "a section") if end else (f"{entry.key}{PARTS}", entry.meaning)
            found.setdefault(word, meaning)
    if len(found) != 1:
        return list(found.items())
    ((word, meaning),) = found.items()
    if not word.endswith(PARTS):
        return _keys(word)
    return [(f"{word}{value}", told) for value, told in _values(word.rstrip(PARTS))] or [(word, meaning)]


def _values(key: str) -> Iterator[tuple[str, str]]:
    if key in GROUPS:
        yield from ((name, "") for name in names_in(*folders_of(USER_CONFIGS, key, CONFIGS / key)))
        return
    entry = next((entry for entry in _entries() if entry.key == key), None)
    if entry is None:
        return
    if entry.type == "bool":
        yield from (("true", ""), ("false", ""))
    else:
        yield from entry.choices.items()


def _entries() -> Iterator[Entry]:
    """Every key that holds a value, of all methods; names of modalities are the user's and not known here."""
    for part in sections(Config):
        yield from (entry for entry in part.entries if entry.section is None and "NAME" not in entry.key)
    seen = {"method.name"}
    for schema in METHODS.values():
        for part in sections(schema, "method"):
            yield from (e for e in part.entries if e.key not in seen and e.section is None)
            seen |= {entry.key for entry in part.entries}

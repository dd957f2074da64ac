"""From raw values to those that a dataclass takes: its types decide what a token means (no torch here).

Every key that is unknown and every value that does not fit becomes a problem that names file, line and key.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from mmpretrain.config.keys import Meaning, meaning_of
from mmpretrain.config.merging import leaves, nearest
from mmpretrain.config.scalars import (
    Scalar,
    ScalarError,
    read_any,
    read_bool,
    read_decimal,
    read_minutes,
    read_path,
    read_text,
    read_whole,
)
from mmpretrain.config.yaml_files import Items, Raw, Table, YamlError, parse
from mmpretrain.words import shortened

_READERS: dict[Any, Callable[[Scalar], Any]] = {
    str: read_text,
    int: read_whole,
    float: read_decimal,
    bool: read_bool,
    Any: read_any,
}
_MEANINGS: dict[Meaning, Callable[[Scalar], Any]] = {
    Meaning.path: read_path,
    Meaning.minutes: read_minutes,
    Meaning.shell: lambda scalar: scalar.text,
}


class _Wrong(Exception):
    """A value does not fit; it is in the problems already."""


@dataclass
class Typing:
    """The reading of one file, or (``file`` None) of the command line. problems: grows.

    classes: dataclasses that take the place of those in the type hints.
    """

    file: Path | None
    problems: list[str]
    classes: Mapping[type, type] = field(default_factory=dict)

    def section(self, schema: type, table: Table, key: str = "") -> dict[str, Any]:
        """The values for the dataclass ``schema`` at ``key``; what is wrong is left out and becomes a problem."""
        hints, meanings = _keys(self.classes.get(schema, schema))
        found = {}
        for name, raw in table.items():
            here = f"{key}.{name}".lstrip(".")
            if name not in hints:
                self._unknown(here, raw, table.lines.get(name), name, key, list(hints))
                continue
            try:
                found[name] = self._value(hints[name], raw, here, meanings[name], table.lines.get(name))
            except _Wrong:
                continue
        return found

    def _value(self, hint: Any, raw: Raw, key: str, meaning: Meaning, line: int | None) -> Any:
        inner, nullable = _without_null(hint)
        form = get_origin(inner) or inner
        if isinstance(raw, Scalar) and raw.is_null and inner is not Any:
            # Null takes an entry out of a mapping, or empties it; the home folder is no null.
            if nullable or form is dict:
                return None
            if not (meaning is Meaning.path and raw.text == "~"):
                text = "" if inner is not str or not raw.text else "; the text itself needs quotes"
                raise self._wrong(key, raw, line, f"a value is needed{text}")
        if form in (Union, UnionType):
            return self._one_of(get_args(inner), raw, key, meaning, line)
        raw = self._unfolded(form, raw, key)
        if form is list:
            return self._list(get_args(inner)[0], raw, key, meaning, line)
        if form is dict or (isinstance(form, type) and is_dataclass(form)):
            return self._mapping(inner, raw, key, line)
        if form is Any and not isinstance(raw, Scalar):
            return self._free(raw, key, line)
        if not isinstance(raw, Scalar):
            what = "a list" if isinstance(raw, Items) else "a mapping (`key: value`)"
            raise self._wrong(key, raw, line, f"one value is needed, not {what}")
        return self._scalar(inner, raw, key, meaning, line)

    def _scalar(self, inner: Any, raw: Scalar, key: str, meaning: Meaning, line: int | None) -> Any:
        if isinstance(inner, type) and issubclass(inner, Enum):
            names = [member.name for member in inner]
            if raw.text.strip() in names:
                return inner[raw.text.strip()]
            raise self._wrong(
                key, raw, line, f"{raw.text!r} is none of {', '.join(names)}{nearest(raw.text.strip(), names)}"
            )
        reader = _MEANINGS[meaning] if meaning in _MEANINGS and inner in (str, int) else _READERS[inner]
        try:
            return reader(raw)
        except ScalarError as error:
            raise self._wrong(key, raw, line, str(error)) from None

    def _list(self, of: Any, raw: Raw, key: str, meaning: Meaning, line: int | None) -> list[Any]:
        if isinstance(raw, Table):
            raise self._wrong(key, raw, line, "a list is needed, such as [a, b], not a mapping")
        if isinstance(raw, Scalar):
            if of is not str and raw.plain and "," in raw.text:
                raise self._wrong(key, raw, line, f"a list is needed: write [{raw.text}]")
            return [self._value(of, raw, key, meaning, line)]  # one value is a list of one
        return [self._value(of, e, f"{key}[{at}]", meaning, _line(e, line)) for at, e in enumerate(raw)]

    def _mapping(self, inner: Any, raw: Raw, key: str, line: int | None) -> dict[str, Any]:
        if not isinstance(raw, Table):
            what = "a list" if isinstance(raw, Items) else "one value"
            raise self._wrong(key, raw, line, f"a mapping is needed, such as {{key: value}}, not {what}")
        if get_origin(inner) is not dict:
            return self.section(inner, raw, key)
        of = get_args(inner)[1]
        found: dict[str, Any] = {}
        for name, entry in raw.items():
            here, at = f"{key}.{name}", raw.lines.get(name)
            if isinstance(entry, Scalar) and entry.is_null:
                found[name] = None  # takes it out
                continue
            try:
                found[name] = self._value(of, entry, here, Meaning.value, at)
            except _Wrong:
                continue
        return found

    def _free(self, raw: Raw, key: str, line: int | None) -> Any:
        if isinstance(raw, Items):
            return self._list(Any, raw, key, Meaning.value, line)
        assert isinstance(raw, Table)
        return self._mapping(dict[str, Any], raw, key, line)

    def _one_of(self, hints: tuple[Any, ...], raw: Raw, key: str, meaning: Meaning, line: int | None) -> Any:
        """The value of a union: what is a truth value is one, then the first type that takes the form counts."""
        if isinstance(raw, Scalar):
            if bool in hints and raw.plain and raw.text in ("true", "false"):
                return raw.text == "true"
            plain = [hint for hint in hints if get_origin(hint) is None and hint is not bool]
            if str in plain or not plain:
                plain = [hint for hint in plain if hint is str] or [hints[0]]
            return self._value(plain[0], raw, key, meaning, line)
        wanted = list if isinstance(raw, Items) else dict
        fitting = [hint for hint in hints if get_origin(hint) is wanted or (wanted is dict and is_dataclass(hint))]
        return self._value(fitting[0] if fitting else hints[0], raw, key, meaning, line)

    def _unfolded(self, form: Any, raw: Raw, key: str) -> Raw:
        """A list or mapping that was written as one word of the command line."""
        if self.file is not None or not isinstance(raw, Scalar) or not raw.plain:
            return raw
        section = form is dict or (isinstance(form, type) and is_dataclass(form))
        if not section and not (form in (list, Any) and raw.text.lstrip().startswith(("[", "{"))):
            return raw
        try:
            folded = parse(raw.text)
        except YamlError as error:
            raise self._wrong(key, raw, None, str(error)) from None
        return raw if folded is None else _without_lines(folded)

    def _unknown(self, here: str, raw: Raw, line: int | None, name: str, key: str, known: list[str]) -> None:
        if self.file is None and isinstance(raw, Table) and raw:
            here = f"{here}.{next(leaves(raw))[0]}"
        self.problems.append(
            f"{self._place(line)}{here}: unknown key{nearest(name, known)};"
            f" {key or 'the top level'} has {', '.join(known)}"
        )

    def _wrong(self, key: str, raw: Raw, line: int | None, reason: str) -> _Wrong:
        asked = ""
        if self.file is None and isinstance(raw, Scalar):
            asked = f"={shortened(raw.text, 60)}"
            if reason.endswith(("quotes", "if it is a text")):  # the shell takes one pair away
                reason += f": {shlex.quote(f'{key}={json.dumps(raw.text, ensure_ascii=False)}')}"
        self.problems.append(f"{self._place(line)}{key}{asked}: {reason}")
        return _Wrong()

    def _place(self, line: int | None) -> str:
        if self.file is None:
            return ""
        return f"{self.file}: " if line is None else f"{self.file}:{line}: "


@cache
def _keys(schema: type) -> tuple[dict[str, Any], dict[str, Meaning]]:
    """Type and meaning of every key of a dataclass."""
    hints = get_type_hints(schema)
    return (
        {entry.name: hints[entry.name] for entry in fields(schema)},
        {entry.name: meaning_of(entry) for entry in fields(schema)},
    )


def _without_null(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (Union, UnionType) or NoneType not in get_args(hint):
        return hint, False
    rest = tuple(part for part in get_args(hint) if part is not NoneType)
    return (rest[0] if len(rest) == 1 else Union[rest]), True  # noqa: UP007 (made at run time)


def _line(raw: Raw, line: int | None) -> int | None:
    return raw.line if raw.line is not None else line


def _without_lines(raw: Raw) -> Raw:
    """The same without the lines, which mean nothing on the command line."""
    if isinstance(raw, Scalar):
        return Scalar(raw.text, raw.plain)
    if isinstance(raw, Items):
        return Items([_without_lines(entry) for entry in raw])
    return Table({name: _without_lines(entry) for name, entry in raw.items()})

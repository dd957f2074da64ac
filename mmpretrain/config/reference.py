"""What every key of the config is, read from the dataclasses themselves (no torch here).

The meaning of a field, or of a member of an enumeration, is the string that stands below it in the source. Python
throws such strings away, so they are read from the source again.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING as REQUIRED

from mmpretrain.config.keys import Freedom, freedom_of


@dataclass(frozen=True)
class Entry:
    """One key. choices: value -> meaning, where it is one of an enumeration. section: key of the section that tells
    what is below it, None where nothing is. meaning: empty if there is none. freedom: whether it may change when a run
    goes on."""

    key: str
    type: str
    default: str
    meaning: str
    choices: Mapping[str, str] = field(default_factory=dict)
    section: str | None = None
    freedom: Freedom = Freedom.fixed


@dataclass(frozen=True)
class Section:
    """The keys directly below ``key`` (empty for the top level), and what their dataclass says of the whole."""

    key: str
    about: str
    entries: tuple[Entry, ...]


def sections(
    schema: type, key: str = "", known: dict[type, str] | None = None, without: frozenset[str] = frozenset()
) -> Iterator[Section]:
    """The section of ``schema``, which stands at ``key``, and all sections below it, each dataclass once.

    known: dataclass -> key of its section, of those that are told already; grows. without: fields to leave out.
    """
    known = {} if known is None else known
    known[schema] = key
    hints, told = get_type_hints(schema), meanings(schema)
    entries, below = [], {}
    for entry in fields(schema):
        if entry.name in without:
            continue
        here = f"{key}.{entry.name}".lstrip(".")
        inner, is_mapping = _inner(hints[entry.name])
        where = None
        if isinstance(inner, type) and is_dataclass(inner):
            if inner not in known:
                known[inner] = f"{here}.NAME" if is_mapping else here
                below[known[inner]] = inner
            where = known[inner]
        entries.append(_entry(entry, here, hints[entry.name], told.get(entry.name, ""), where))
    yield Section(key, inspect.getdoc(schema) or "", tuple(entries))
    for where, inner in below.items():
        yield from sections(inner, where, known)


def meanings(schema: type) -> dict[str, str]:
    """Name of a field or member -> the string below it, on one line; what a base class says holds where nothing is."""
    found: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        if is_dataclass(base) or base is schema:
            found |= _strings(base)
    return found


def undocumented(parts: Iterable[Section]) -> list[str]:
    """The keys, and the values of enumerations as ``key=value``, that have no meaning."""
    found = []
    for entry in (entry for part in parts for entry in part.entries):
        found += [] if entry.meaning else [entry.key]
        found += [f"{entry.key}={value}" for value, meaning in entry.choices.items() if not meaning]
    return found


def _strings(schema: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for above, below in zip(definition.body, definition.body[1:], strict=False):
        target = above.targets[0] if isinstance(above, ast.Assign) else getattr(above, "target", None)
        if isinstance(target, ast.Name) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[target.id] = " ".join(str(below.value.value).split())
    return found


def _entry(source: Field[Any], key: str, hint: Any, meaning: str, section: str | None) -> Entry:
    default = source.default_factory() if source.default_factory is not MISSING else source.default
    inner, _ = _inner(hint)
    choices = {}
    if isinstance(inner, type) and issubclass(inner, Enum):
        told = meanings(inner)
        choices = {str(member.value): told.get(member.name, "") for member in inner}
    shown = "" if is_dataclass(default) else _shown(default)
    return Entry(key, _type(hint), shown, meaning, choices, section, freedom_of(source))


def _inner(hint: Any) -> tuple[Any, bool]:
    """What a type is made of (``X | None``, ``list[X]``, ``dict[str, X]`` -> X), and whether it is a mapping."""
    parts = [part for part in get_args(hint) if part is not NoneType]
    if not parts:
        return hint, False
    is_mapping = get_origin(hint) is dict
    return _inner(parts[-1])[0], is_mapping


def _type(hint: Any) -> str:
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is list:
        return f"list of {_type(parts[0])}s"
    if get_origin(hint) is dict:
        return "mapping" if parts[1] is Any else f"mapping from names to {_type(parts[1])}s"
    if parts:
        return f"{_type(parts[0])} or null"
    if is_dataclass(hint):
        return "section"
    return "choice" if issubclass(hint, Enum) else str(hint.__name__)


def _shown(value: Any) -> str:
    """A default as a user would write it in YAML; empty where a value is required."""
    if value in (REQUIRED, MISSING):
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value) or '""'

"""The config as people want to see it before a run: what is not as usual, and how much else there is (no torch)."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

from omegaconf import OmegaConf

from mmpretrain.config.root import Config
from mmpretrain.config.yaml_files import to_yaml

INLINE = 100  # characters of a mapping without mappings in it that still stands on one line


def folded_text(config: Config) -> str:
    """YAML of the keys that differ from their defaults (those of the chosen method), and a count of the others."""
    kept, left = _folded(config)
    lines = _lines(kept, 0)
    return "\n".join([*lines, f"# and {left} keys as usual"] if left else lines)


def _folded(section: Any) -> tuple[dict[str, Any], int]:
    """The entries of a dataclass that are not at their defaults, plain, and how many are."""
    kept: dict[str, Any] = {}
    left = 0
    for entry in fields(section):
        value = getattr(section, entry.name)
        if is_dataclass(value):
            inner, more = _folded(value)
            left += more
            # Names say what was chosen, also where the default was.
            if entry.name == "method":
                inner = {"name": section.method.name, **inner}
            if inner:
                kept[entry.name] = inner
        elif isinstance(value, dict) and value and all(map(is_dataclass, value.values())):
            found = {name: _folded(one) for name, one in value.items()}
            kept[entry.name] = {name: inner for name, (inner, _) in found.items()}
            left += sum(more for _, more in found.values())
        elif value == _default(entry):
            left += 1
        else:
            kept[entry.name] = _plain(value)
    return kept, left


def _default(entry: Field[Any]) -> Any:
    if entry.default_factory is not MISSING:
        return entry.default_factory()
    return entry.default


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return OmegaConf.to_container(OmegaConf.structured(value)) if is_dataclass(value) else value


def _lines(tree: dict[str, Any], depth: int) -> list[str]:
    """YAML of a mapping; mappings of scalars stand on one line where they fit."""
    found, indent = [], "  " * depth
    for key, value in tree.items():
        flat = indent + to_yaml({key: value}, inline=True).rstrip("\n")
        if not isinstance(value, dict) or (len(flat) <= INLINE and not _deep(value)):
            found.append(flat)
        else:
            found += [f"{indent}{key}:", *_lines(value, depth + 1)]
    return found


def _deep(value: dict[str, Any]) -> bool:
    return any(isinstance(one, dict) and one for one in value.values())

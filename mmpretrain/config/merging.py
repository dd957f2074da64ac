"""Laying one layer of the config over another, of values that fit their keys already (no torch)."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from itertools import groupby
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# Where null removes an entry, or empties a mapping: merging alone can only add.
MAPPINGS = ("data.modalities.", "data.sources", "model.encoders.", "engine.deepspeed", "data.held_out")


def merge_all(tree: DictConfig, layers: Iterable[dict[str, Any]], problems: list[str]) -> DictConfig:
    """``tree`` with one layer after another over it; a row of those that remove nothing in one go."""
    for removes, group in groupby(layers, _may_remove):
        several = list(group)
        if not removes:
            with suppress(OmegaConfBaseException):
                tree = OmegaConf.merge(tree, *several)  # type: ignore[assignment]
                continue
        for layer in several:
            tree = merge(tree, layer, problems)
    return tree


def merge(tree: DictConfig, layer: dict[str, Any], problems: list[str]) -> DictConfig:
    """``tree`` with ``layer`` over it: whole, or leaf by leaf where that fails, so that each wrong one is reported."""
    given = dict(leaves(layer))
    removed = [key for key, value in given.items() if value is None and _is_mapping(tree, key)]
    if removed:
        tree = _cleared(tree, removed)
    rest = _without(layer, removed)
    if not rest:
        return tree
    with suppress(OmegaConfBaseException):
        return OmegaConf.merge(tree, rest)  # type: ignore[return-value]
    for key, value in leaves(rest):
        try:
            tree = OmegaConf.merge(tree, nest(key, value))  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            reason = "there is no such entry to take out" if value is None else str(error).splitlines()[0]
            problems.append(f"{key}={show(value)}: {reason}")
    return tree


def _may_remove(layer: dict[str, Any]) -> bool:
    return any(value is None and key.startswith(MAPPINGS) for key, value in leaves(layer))


def _without(layer: dict[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """``layer`` without the leaves ``keys``, and without mappings of which nothing is left."""
    found = {}
    for key, value in layer.items():
        if isinstance(value, dict) and value:
            if inner := _without(value, keys, f"{prefix}{key}."):
                found[key] = inner
        elif f"{prefix}{key}" not in keys:
            found[key] = value
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)``, or nothing where nothing is near."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def nest(key: str, value: Any) -> dict[str, Any]:
    """``a.b``, value -> ``{"a": {"b": value}}``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is not a filled mapping."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def show(value: Any) -> str:
    """A value as a user would type it."""
    return "null" if value is None else str(getattr(value, "value", value))


def _is_mapping(tree: DictConfig, key: str) -> bool:
    """Whether ``key`` holds a mapping that may be empty, or is an entry of one (sections are neither)."""
    node, parent = _select(tree, key), _select(tree, key.rpartition(".")[0])
    free = OmegaConf.get_type(node) is dict or OmegaConf.get_type(parent) is dict
    return any(key.startswith(prefix) for prefix in MAPPINGS) and isinstance(node, DictConfig) and free


def _select(tree: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(tree, key)
    except OmegaConfBaseException:
        return None


def _cleared(tree: DictConfig, keys: Iterable[str]) -> DictConfig:
    """``tree`` without the entries ``keys`` of mappings, or with the free mappings ``keys`` emptied."""
    copy = deepcopy(tree)
    for key in keys:
        above, _, name = key.rpartition(".")
        parent = OmegaConf.select(copy, above)
        if OmegaConf.get_type(parent) is dict:
            del parent[name]
        else:
            OmegaConf.select(copy, key).clear()
    return copy

"""How the runs of a sweep are called: as each would be alone, and what it does not share with the others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mmpretrain.config.changes import settles
from mmpretrain.config.compose import GROUPS
from mmpretrain.config.merging import leaves
from mmpretrain.config.root import Config

LONGEST = 80  # characters: a folder's name may have 255, and wandb shows about as many
FOLDER = "-sweep"  # what the folder of a sweep without a name ends with: a run of the same name may lie beside it


@dataclass(frozen=True)
class Settings:
    """What a run is, as far as names and doubles go.

    base: the name that it would have alone. values: what it sets of the keys and groups that are swept, in the config's
    order. identity: all keys that determine it, without name and place: equal ones are the same run.
    """

    base: str
    values: Mapping[str, Any]
    identity: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Eight letters that stand for the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True, default=str).encode()).hexdigest()[:8]


def settings_of(config: Config, tokens: Sequence[str], keys: Sequence[str]) -> Settings:
    """config: as composed, ``bind`` not called. tokens: those of this run. keys: those that some run of the sweep sets
    for itself; they tell runs apart even where they change no result."""
    assert config.run.name is not None  # compose fills it in
    tree = _plain(asdict(config))
    given = dict(leaves(tree))
    chosen = {key: value for key, _, value in (token.partition("=") for token in tokens)}
    values = {group: chosen.get(group) for group in GROUPS if group in keys}
    values |= {key: _at(tree, key) for key in sorted(set(keys) - set(GROUPS), key=_order(list(given)))}
    identity = {key: value for key, value in given.items() if settles(key, config) or _below(key, keys)}
    return Settings(config.run.name, values, identity)


def names_of(runs: Sequence[Settings]) -> list[str]:
    """A name for each, of letters that a run's name may have; equal settings have equal names, others never."""
    differ = [key for key in runs[0].values if len({_text(run.values[key]) for run in runs}) > 1] if runs else []
    shorts = _short_keys(differ)
    names = [_cut("-".join([run.base, *_words(run, differ, shorts)]), run) for run in runs]
    owners: dict[str, set[str]] = {}
    for name, run in zip(names, runs, strict=True):
        owners.setdefault(name, set()).add(run.digest)
    return [name if len(owners[name]) == 1 else _hashed(name, run) for name, run in zip(names, runs, strict=True)]


def sweep_name(bases: Sequence[str]) -> str:
    """What a sweep is called whose runs would have these names alone: the words that they share."""
    words = [base.split("-") for base in bases]
    shared = [word for word in words[0] if all(word in others for others in words)]
    return ("-".join(shared) or "several") + FOLDER


def _words(run: Settings, differ: Sequence[str], shorts: Mapping[str, str]) -> list[str]:
    words = []
    for key in differ:
        value = run.values[key]
        if key in GROUPS:
            word = "" if value is None or str(value) in run.base.split("-") else str(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            word = f"{shorts[key]}{_text(value)}"
        else:
            word = f"{shorts[key]}-{_text(value)}"
        words += [cleaned] if (cleaned := _clean(word)) else []
    return words


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Of each dotted key so many of its last parts as tell it from the others."""
    found = {}
    for key in keys:
        parts = key.split(".")
        others = [other.split(".") for other in keys if other != key]
        length = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in others)), len(parts))
        found[key] = ".".join(parts[-length:])
    return found


def _text(value: Any) -> str:
    if isinstance(value, str):  # of a folder its name
        return Path(value).name if "/" in value else value
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else json.dumps(value, default=str)


def _clean(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", word).strip("-")


def _cut(name: str, run: Settings) -> str:
    return name if len(name) <= LONGEST else _hashed(name, run)


def _hashed(name: str, run: Settings) -> str:
    return f"{name[: LONGEST - 9].rstrip('-._')}-{run.digest}"


def _plain(value: Any) -> Any:
    """As plan.json has it."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.name if isinstance(value, Enum) else value


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _below(key: str, keys: Sequence[str]) -> bool:
    return any(key == swept or key.startswith(f"{swept}.") for swept in keys)


def _order(known: Sequence[str]) -> Any:
    """Sorts keys as the config has them; a mapping where its first entry is, unknown ones last."""
    places = {key: at for at, key in enumerate(known)}
    return lambda key: (next((at for name, at in places.items() if _below(name, [key])), len(places)), key)

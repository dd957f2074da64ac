"""What is filled in where nobody said it: modalities by the folder, encoders by their kinds, metrics by the data.

No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from mmpretrain.config.default_model import BYTES, BYTES_LENGTH, default_encoders
from mmpretrain.config.evaluation import Need
from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config

Tree = dict[str, Any]


class Look(Protocol):
    """What looks into folders of shards: data/discovery.py."""

    notes: list[str]

    def data(self, path: str, given: Mapping[str, Any]) -> Tree:
        """The section ``data`` that a folder implies. Raises ValueError if that cannot be told."""

    def mixture(self, sources: Mapping[str, Any], given: Mapping[str, Any]) -> Tree:
        """The section ``data`` that several sources imply. Raises ValueError if that cannot be told."""

    def tokenizer(self, paths: Sequence[str]) -> str:
        """The tokenizer for texts of folders."""

    def has(self, paths: Sequence[str], split: str) -> bool:
        """Whether one of these folders has this split."""


def fill_in(layers: list[Tree], files: int, look: Look | None, problems: list[str], *, small: bool) -> None:
    """Insert a layer with the modalities and the encoders that no layer describes, after those of files.

    layers: values that fit their keys, ``files`` of them from files, the others from the command line. look: what looks
    into the folder of the data; None: modalities stay as they are. small: whether encoders that nobody described are
    the small ones.
    """
    given = _merged(layers, "data", "modalities")
    path = next((data["path"] for data in _sections(reversed(layers), "data") if "path" in data), None)
    sources = {n: entry for n, entry in _merged(layers, "data", "sources").items() if entry and "path" in entry}
    paths = [entry["path"] for entry in sources.values()] if sources and not path else [path] if path else []
    filled: Tree = {}
    described = any(entry and "kind" in entry for entry in _merged(layers[:files], "data", "modalities").values())
    if look is not None and paths and not described:
        try:
            filled["data"] = look.data(path, given) if path else look.mixture(sources, given)
        except ValueError as error:
            problems.append(str(error))
    modalities = _merged([filled, *layers], "data", "modalities")
    if small:
        known = _described(_merged(layers, "model", "encoders"))
        kinds = {n: Kind(m["kind"]) for n, m in modalities.items() if m and "kind" in m and n not in known}
        tokenized = [name for name, kind in kinds.items() if kind.row.tokenized]
        tokenizer = look.tokenizer(paths) if look is not None and paths and tokenized else ""
        filled["model"] = {"encoders": default_encoders(kinds, tokenizer)}
        for name in tokenized if tokenizer == BYTES else []:
            found = filled.setdefault("data", {}).setdefault("modalities", {})
            found[name] = {"max_length": BYTES_LENGTH, **found.get(name, {})}
    layers.insert(files, filled)


def usual_metrics(config: Config, look: Look | None) -> None:
    """Leave out those of the default metrics that the data have no labels or no held-out split for, with a note."""
    settings = config.evaluation
    left_out = [] if config.data.labeled else [m for m in settings.final if Need.labels in m.needs]
    if left_out and look is not None:
        look.notes.append(f"no labels (data.classes is null): {', '.join(left_out)} left out")
    settings.final = [metric for metric in settings.final if metric not in left_out]
    firsts = [part.paths[0] for part in config.data.parts.values() if part.paths]
    held_out = settings.split in config.data.held_out
    if look is not None and settings.final and firsts and not held_out and not look.has(firsts, settings.split):
        named = f"{' and '.join(firsts)} {'have' if len(firsts) > 1 else 'has'}"
        look.notes.append(
            f"{named} no {settings.split}/, so nothing is evaluated; `mmpretrain shards build` holds samples out by"
            f" --split {settings.split}=0.02"
        )
        settings.final = []


def usual_warmup(config: Config) -> None:
    """Of a short run the warm-up is a tenth, so that it does not end before the learning rate is there."""
    config.optim.warmup_samples = min(config.optim.warmup_samples, config.train.samples // 10)


def usual_pools(config: Config, said: Iterable[Tree]) -> None:
    """Leave out the pools of the small encoders where the method fuses their tokens, and pools nothing.

    said: the layers that somebody wrote.
    """
    encoders = _merged(said, "model", "encoders")
    unsaid = [name for name in config.model.encoders if "pool" not in (encoders.get(name) or {})]
    if any(config.model.encoders[name].pool for name in unsaid) and config.fuses_tokens:
        for name in unsaid:
            config.model.encoders[name].pool = None


def _sections(layers: Iterable[Tree], name: str) -> list[Tree]:
    return [section for layer in layers if (section := layer.get(name))]


def _merged(layers: Iterable[Tree], section: str, key: str) -> Tree:
    """The entries of a mapping of all layers, key by key; None: taken out."""
    found: Tree = {}
    for part in _sections(layers, section):
        for name, entry in (part.get(key) or {}).items():
            found[name] = None if entry is None else {**(found.get(name) or {}), **entry}
    return found


def _described(encoders: Tree) -> set[str]:
    return {
        name for name, entry in encoders.items() if entry and (entry.get("architecture") or entry.get("pretrained"))
    }

"""What the command line of a fine-tuning asks for, and what it comes to in names (no torch here)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.finetuning.start import Start
from mmpretrain.config.finetune import Recipe

NO_CHOICE = "evaluation.best.score=null"


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. data: a folder, None if tokens say it. lock: modalities; tokens: the rest."""

    start: Start
    data: str | None
    general: str | None
    lock: tuple[str, ...]
    epochs: float | None
    tokens: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """The one that a token chooses, else all learns."""
        return next((t.partition("=")[2] for t in reversed(self.tokens) if t.startswith("recipe=")), Recipe.full.value)

    @property
    def chooses(self) -> bool:
        """Whether a score chooses the step that is released."""
        return NO_CHOICE not in self.tokens

    @property
    def data_name(self) -> str:
        """What the data are called by who asks: a folder, or a choice."""
        said = (token.partition("=")[2] for token in self.tokens if token.startswith(("data=", "data.path=")))
        return next(said, self.data) or "data"

    @property
    def says_data(self) -> bool:
        """Whether tokens say where samples lie."""
        keys = [token.partition("=")[0] for token in self.tokens]
        return any(key in ("data", "data.path") or key.startswith("data.sources") for key in keys)

    def says(self, *keys: str) -> bool:
        """Whether the user's tokens set one of these keys, or something below it."""
        return any(
            token.partition("=")[0] == key or token.startswith(f"{key}.") for token in self.tokens for key in keys
        )


def reduced(asked: Asked) -> Asked:
    """The same without the encoders that ``model.encoders.NAME=null`` leaves out."""
    start, out = asked.start, {f"model.encoders.{name}=null": name for name in asked.start.entries}
    gone = {out[token] for token in asked.tokens if token in out}
    entries = {name: entry for name, entry in start.entries.items() if name not in gone}
    sources = {name: source for name, source in start.sources.items() if name not in gone}
    tokens = tuple(token for token in asked.tokens if token not in out)
    return replace(asked, start=replace(start, entries=entries, sources=sources), tokens=tokens)


def run_name(start: Start, data: str) -> str:
    """``finetune-MODEL-DATA``, of letters that a run's name may have."""
    name = f"finetune-{start.name}-{Path(data).name.strip('.') or Path(data).resolve().name}"
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name)


def said(value: Any) -> str:
    """A value as a token says it."""
    return json.dumps(value, default=str).strip('"') if not isinstance(value, list) else json.dumps(value)

"""Whether samples come to encoders as they did where these were trained: weights alone do not say so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config
from mmpretrain.models.images_mmpretrain import BACKGROUND
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.training.start_sources import KEY, StartSource
from mmpretrain.words import shortened

# Who may lack it, and what only bounds a sample, changes nothing about one.
INCIDENTAL = ("optional", "max_length", "pad_to_multiple_of")


def preparation(
    config: Config, source: StartSource, processor: MMPretrainProcessor | None, taken: Collection[str]
) -> tuple[list[str], list[str]]:
    """(problems, notes): tokenizers that give other ids; and what else is prepared otherwise. taken: parts, as
    ``encoders.image``. processor: the run's; None: it is not there yet, and nothing is said."""
    problems: list[str] = []
    notes: list[str] = []
    before = source.processor
    if processor is None or before is None:
        return problems, notes
    for name, entry in processor.modalities.items():
        if f"encoders.{name}" not in taken or name not in before.modalities:
            continue
        mine, theirs = processor.tokenizers.get(name), before.tokenizers.get(name)
        if mine is not None and theirs is not None and mine.get_vocab() != theirs.get_vocab():
            key = f"model.encoders.{name}.tokenizer"
            given = config.model.encoders[name].tokenizer
            problems.append(
                f"{KEY}: the words of {name} have other numbers in {source.called} than in {key}={given}: take the"
                f" tokenizer from there ({key}=RELEASE/tokenizer_{name})"
            )
        if other := _differences(entry, before.modalities[name]):
            notes.append(f"{KEY}: {name} is prepared otherwise than in {source.called}: {shortened('; '.join(other))}")
    return problems, notes


def _differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    here, there = _told(here), _told(there)
    keys = [key for key in dict.fromkeys([*there, *here]) if key not in INCIDENTAL]
    return [f"{key} {there.get(key)} -> {here.get(key)}" for key in keys if here.get(key) != there.get(key)]


def _told(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the background that an image lies on where its entry, as that of a converted model, does not name one."""
    return {"background": BACKGROUND, **entry} if entry["kind"] == Kind.image else entry

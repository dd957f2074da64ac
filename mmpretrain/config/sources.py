"""Config of the sources that a mixture is made of (no torch here)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from mmpretrain.config.keys import PATH, PLACE

NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]*"  # part of the names of metrics and keys


class Mixing(StrEnum):
    """What the share of a source in the stream comes from."""

    weight = "weight"
    """Its ``weight`` over the sum of all: 0.7 and 0.3, or 7 and 3."""

    size = "size"
    """Its samples times its ``weight``: with weights of 1, all sources are used up at the same time."""

    temperature = "temperature"
    """Its samples to the power of 1 / ``data.temperature``, times its ``weight``: small sources get more than by size,
    and the more so the higher the temperature is."""


class LabelForm(StrEnum):
    """What a label is."""

    one_class = "one_class"
    """The number of the sample's class."""

    several = "several"
    """The numbers of all of its classes, none or more, as a JSON list or with spaces or commas between them. Of the
    methods only ``comm_supervised`` learns from such labels; evaluations read them."""

    value = "value"
    """A number that was measured, or ``numbers`` of them. ``data.classes`` is null then; only ``comm_supervised`` and
    evaluations read it."""


@dataclass
class LabelConfig:
    """Where the label of a sample lies."""

    member: list[str] = field(default_factory=list)
    """What follows the key in the name of the member that holds it (``[cls]``, ``[meta.json]``); empty: ``label.cls``,
    or ``cls`` where there is none."""

    field: str | None = None
    """Of a JSON member: the key of the class number; null: the member holds nothing but the number."""

    form: LabelForm = LabelForm.one_class
    """What a label is, in all sources alike."""

    numbers: int = 1
    """``form=value``: how many numbers a sample is labeled with, in all sources alike; several stand in a JSON list, or
    with spaces or commas between them."""


@dataclass
class LayoutConfig:
    """Where a source holds a modality, if elsewhere than the others; what is given takes the place of all three keys of
    ``data.modalities.NAME``."""

    member: list[str] = dataclasses.field(default_factory=list)
    """As ``data.modalities.NAME.member``."""

    field: list[str] = dataclasses.field(default_factory=list)
    """As ``data.modalities.NAME.field``."""

    weights: list[float] = dataclasses.field(default_factory=list)
    """As ``data.modalities.NAME.weights``."""


@dataclass
class SourceConfig:
    """One source of a mixture."""

    path: str = field(default=MISSING, metadata=PATH | PLACE)
    """Folder with ``train/``, and ``test/`` where it has one: local, or a URL."""

    more_paths: list[str] = field(default_factory=list, metadata=PATH | PLACE)
    """Further folders whose samples belong to the source."""

    weight: float = 1.0
    """How often its samples come, relative to the other sources (see ``data.mixing``); 0: not at all."""

    weight_from: dict[str, float] = field(default_factory=dict)
    """Other weights from positions of the stream on, in samples: ``{200000: 0.5, 1000000: 0}``. They hold from the next
    whole global batch."""

    modalities: dict[str, LayoutConfig] = field(default_factory=dict)
    """Where modalities lie in it, by name, if elsewhere than ``data.modalities`` says."""

    label: LabelConfig | None = None
    """Where its labels lie; null: as ``data.label`` says."""

    @property
    def paths(self) -> list[str]:
        """Every folder of the source."""
        return [self.path, *self.more_paths]

    def weight_at(self, position: int) -> float:
        """The weight at a position of the stream."""
        reached = [int(first) for first in self.weight_from if int(first) <= position]
        return self.weight_from[str(max(reached))] if reached else self.weight

    def problems(self, name: str, modalities: Mapping[str, object]) -> list[str]:
        """What is wrong with this entry, one sentence each. modalities: those of ``data.modalities``."""
        key, found = f"data.sources.{name}", []
        if not re.fullmatch(NAME, name):
            found.append(f"{key}: use letters, digits, '_' and '-' for the name of a source")
        if not 0 <= self.weight < math.inf:
            found.append(f"{key}.weight is {self.weight}: it must be a number of 0 or more")
        for position, weight in self.weight_from.items():
            if not re.fullmatch(r"[1-9][0-9]{0,17}", position):
                found.append(f"{key}.weight_from: {position!r} is no position: use a whole number of samples above 0")
            elif not 0 <= weight < math.inf:
                found.append(f"{key}.weight_from.{position} is {weight}: it must be a number of 0 or more")
        unknown = [modality for modality in self.modalities if modality not in modalities]
        return found + [
            f"{key}.modalities.{modality}: data.modalities has no {modality!r}, only {', '.join(modalities)}"
            for modality in unknown
        ]

"""Config of what fine-tuning adds to a run: its recipe, and what is measured before and after (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mmpretrain.config.evaluation import Metric, Need
from mmpretrain.config.keys import PATH
from mmpretrain.config.lora import LoraConfig
from mmpretrain.config.model import EncoderConfig, Projection
from mmpretrain.config.sources import LayoutConfig


class Recipe(StrEnum):
    """What of a model learns."""

    full = "full"
    """All of it."""

    lora = "lora"
    """Small matrices beside those of the encoders (``model.lora``), and all that sits on top of these."""

    head = "head"
    """What sits on top of the encoders, which are frozen: projections, fusion, heads."""

    lit = "lit"
    """All but some encoders, which are frozen with their projections."""


@dataclass
class GeneralConfig:
    """A second data set, kept out of training: whether a model loses there what it wins elsewhere."""

    path: str | None = field(default=None, metadata=PATH)
    """Folder as of ``data.path``; null: there is none."""

    split: str = "test"
    """Its folder of shards that is measured."""

    classes: int | None = None
    """Number of its different labels; null where it has none."""

    modalities: dict[str, LayoutConfig] = field(default_factory=dict)
    """Where it holds the modalities of the run, if their names do not tell it."""

    metrics: list[Metric] = field(default_factory=lambda: [Metric.retrieval])
    """What is measured: metrics that learn nothing (retrieval, zero_shot, classification)."""

    lacks: list[str] = field(default_factory=list)
    """Modalities of the run that it does not hold, such as texts beside pictures of classes."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        if self.path is None:
            return []
        key = "finetune.general"
        found = [] if self.metrics else [f"{key}.metrics is empty: name at least one, such as retrieval"]
        if self.classes is not None and self.classes < 2:
            found.append(f"{key}.classes is {self.classes}: at least 2 are needed, or null for unlabeled data")
        for metric in self.metrics:
            if Need.probe_split in metric.needs:
                found.append(
                    f"{key}.metrics: {metric} learns from samples, which no kept-out data are for: leave it out"
                )
            elif Need.labels in metric.needs and self.classes is None:
                found.append(f"{key}.metrics: {metric} needs labels, but {key}.classes is null")
        return found


@dataclass
class FinetuneConfig:
    """What fine-tuning adds to a run; ``mmpretrain finetune`` fills it in."""

    recipe: Recipe | None = None
    """What of the model learns, as ``recipe=NAME`` chose it; null: none was chosen."""

    before: bool = False
    """Whether what the run starts from is evaluated as the end is, into ``evaluation_before.json``, and both are
    compared."""

    general: GeneralConfig = field(default_factory=GeneralConfig)
    """A second data set, kept out of training."""

    def problems(self, encoders: Mapping[str, EncoderConfig], lora: LoraConfig) -> list[str]:
        """What is wrong with this section, one sentence each. encoders, lora: of the run, which have to fit the
        recipe."""
        found = self.general.problems()
        found += [
            f"finetune.general.lacks names {name!r}, and there is no such encoder: there are {', '.join(encoders)}"
            for name in self.general.lacks
            if encoders and name not in encoders
        ]
        if self.general.path is not None and not self.before:
            found.append("finetune.general.path has no effect without finetune.before=true: set it, too")
        if self.recipe is Recipe.lora and lora.rank is None:
            found.append("recipe=lora needs model.lora.rank, such as 16")
        if self.recipe is Recipe.full and lora.rank is not None:
            found.append(f"recipe=full trains everything, but model.lora.rank is {lora.rank}: choose recipe=lora")
        return found + self._frozen(encoders)

    def _frozen(self, encoders: Mapping[str, EncoderConfig]) -> list[str]:
        """Whether the encoders that are frozen are those of the recipe."""
        found: list[str] = []
        frozen = [name for name, encoder in encoders.items() if encoder.freeze]
        if self.recipe is Recipe.full and frozen:
            found.append(
                f"recipe=full trains everything, but model.encoders.{frozen[0]}.freeze=true: choose recipe=head or lit"
            )
        if self.recipe is Recipe.head:
            found += [
                f"recipe=head freezes all encoders: set model.encoders.{name}.freeze=true"
                for name in encoders
                if name not in frozen
            ]
        if self.recipe is Recipe.lit and not 0 < len(frozen) < len(encoders):
            found.append(
                f"recipe=lit locks some encoders and trains others, and of {', '.join(encoders)} it finds"
                f" {', '.join(frozen) or 'none'} frozen: set model.encoders.NAME.freeze=true for what is locked"
            )
        if self.recipe is Recipe.lit:
            found += [
                f"recipe=lit locks projections with their encoders: leave model.encoders.{name}.projection=trained out"
                for name in frozen
                if encoders[name].projection is Projection.trained
            ]
        return found

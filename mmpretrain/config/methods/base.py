"""What every method's hyper-parameters have in common (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from mmpretrain.config.data import DataConfig, LabelForm
from mmpretrain.config.model import ModelConfig
from mmpretrain.config.objective import LARGEST_SCALE, HardNegatives, ObjectiveConfig


@dataclass(frozen=True)
class Exchange:
    """What other ranks need of every sample in one trip.

    width: floats per sample, of all sides together. pairs: how many matrices over pairs of samples they make.
    rings: whether ``objective.negatives=ring`` can send them round; otherwise they are always gathered. strip_width:
    floats per pair of a strip of learned critics (``objective.critic_mb``), 0 for other losses.
    """

    width: int
    pairs: int
    rings: bool = True
    strip_width: int = 0

    def with_hard_negatives(self, widths: Mapping[str, int], data: DataConfig, objective: ObjectiveConfig) -> Exchange:
        """The same with the hard negatives of ``data``: each is a further side, seen by all other modalities."""
        counts = {name: entry.count for name, entry in data.hard_negatives.items()}
        if not counts or objective.hard_negatives is HardNegatives.own:
            return self
        # Each pair of modalities has its own where samples may lack some: what is hidden differs.
        missing = any(entry.optional for entry in data.modalities.values())
        copies = len(widths) - 1 if missing else 1
        width = self.width + copies * sum(count * widths[name] for name, count in counts.items())
        return replace(self, width=width, pairs=self.pairs + (len(widths) - 1) * sum(counts.values()))


@dataclass(frozen=True)
class ModelParts:
    """What the model of a method consists of, as :class:`MMPretrainConfig` takes it; None: without that part.

    encoders: whether there is one for every modality. embed_dim: width of a projection behind each of them. fusion,
    factors, components, connection: plain values of the fusion, of the heads for shared and unique information, of
    those for common and individual codes, and of the projectors that connect two spaces. classifier: whether there is
    one. fused_classifier: whether that one is linear, on what the fusion makes of all modalities.
    """

    encoders: bool = True
    embed_dim: int | None = None
    fusion: dict[str, Any] | None = None
    factors: dict[str, Any] | None = None
    components: dict[str, Any] | None = None
    connection: dict[str, Any] | None = None
    classifier: bool = False
    fused_classifier: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The keywords of :class:`MMPretrainConfig` that say so, without those of encoders and classifier."""
        names = ("embed_dim", "fusion", "factors", "components", "connection")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass
class MethodConfig:
    """What every method has, and what it says of itself.

    implementation: its class, ``package.module.NAME``. contrasts: it compares samples with those of all ranks, as
    objective.negatives says.
    takes_missing: it learns from samples that lack modalities. takes_hard_negatives: it learns from hard negatives of
    samples. takes_margin: its rows have one counterpart, so that likely false negatives can be left out by its
    similarity. title, arxiv: of its paper.
    """

    name: str = ""
    """The method; ``method=NAME`` sets it and takes the defaults of that method."""

    implementation: ClassVar[str] = ""
    contrasts: ClassVar[bool] = True
    takes_missing: ClassVar[bool] = False
    takes_hard_negatives: ClassVar[bool] = False
    takes_margin: ClassVar[bool] = False
    title: ClassVar[str] = ""
    arxiv: ClassVar[str | None] = None

    @property
    def needs_labels(self) -> bool:
        """Whether every sample must have a label."""
        return False

    @property
    def augments(self) -> bool:
        """Whether it makes augmented views of samples."""
        return False

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """What the method's model consists of; ``model`` and ``data`` need not fit the method."""
        return ModelParts(embed_dim=model.embed_dim)

    def unique_views(self, modalities: Sequence[str]) -> Sequence[str]:
        """Those of ``modalities`` whose views get the unique augmentation instead of the default one."""
        return ()

    def exchange(self, widths: Mapping[str, int]) -> Exchange:
        """What its losses send to other ranks; widths: modality -> width of its embedding."""
        # Most methods compare all modalities' embeddings: an estimate that these should not exceed by much.
        return Exchange(sum(widths.values()), len(widths))

    @staticmethod
    def exchange_of_pairs(widths: Mapping[str, int]) -> Exchange:
        """The same where every two modalities are compared: of those in front the later one's embeddings travel."""
        return Exchange(sum(list(widths.values())[1:]), len(widths) * (len(widths) - 1) // 2)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return []

    def data_problems(self, data: DataConfig) -> list[str]:
        """What this dataset lacks for the method, one sentence each."""
        optional = [name for name, modality in data.modalities.items() if modality.optional]
        found = []
        if optional and not self.takes_missing:
            way = "leave out the modality or the sources that lack it" if data.sources else "leave it out"
            found.append(
                f"data.modalities.{optional[0]}.optional=true: method={self.name} needs all modalities of every sample;"
                f" {way}, or choose a method that takes samples without some"
            )
        if self.needs_labels and data.classes is None:
            found.append(f"method={self.name} learns from labels, but data.classes is null")
        elif self.needs_labels and data.label.form is not LabelForm.one_class:
            form = f"data.label.form is {data.label.form}"
            found.append(f"method={self.name} learns from one class per sample, but {form}: choose another method")
        return found

    def model_problems(self, model: ModelConfig, data: DataConfig) -> list[str]:
        """What stands against training this model on this dataset by the method, one sentence each."""
        return []

    def objective_problems(self, objective: ObjectiveConfig, data: DataConfig) -> list[str]:
        """What of negatives the method has no use for, or has no meaning on this dataset, one sentence each."""
        found = []
        if data.hard_negatives and not self.takes_hard_negatives:
            found.append(
                f"data.modalities.{next(iter(data.hard_negatives))}.negatives: method={self.name} has no use for hard"
                " negatives; leave them out, or choose method=clip or siglip"
            )
        if objective.false_negative_margin is not None and not self.takes_margin:
            found.append(
                f"objective.false_negative_margin is {objective.false_negative_margin}: method={self.name} does not"
                " compare rows with one counterpart each, by which likely false negatives are told; set it to null, or"
                " choose method=clip"
            )
        if objective.hard_negatives is HardNegatives.own and not data.hard_negatives:
            found.append(
                "objective.hard_negatives is own, and no modality has hard negatives: say where they lie by"
                " data.modalities.NAME.negatives, or leave it out"
            )
        return found

    def bind(self, local_batch: int) -> None:
        """Fill what defaults to the local batch of the run's first start; stored with the run from then on."""

    def bind_as(self, before: MethodConfig) -> None:
        """Fill the same keys with what they were at an earlier start of the run, whatever its local batch is now."""
        filled = deepcopy(self)
        filled.bind(1)
        for entry in fields(self):
            if getattr(filled, entry.name) != getattr(self, entry.name):
                setattr(self, entry.name, getattr(before, entry.name, None))

    def batch_problems(self, local_batch: int) -> list[str]:
        """What stands against ``local_batch`` samples per rank, one sentence each."""
        return []

    def other_length(self, done: float, before: float, after: float) -> tuple[list[str], list[str]]:
        """(problems, notes) of a run that becomes longer or shorter after ``done`` epochs: of ``before`` planned ones
        ``after`` are made. Of losses that depend on that alone; not of the learning rate."""
        return [], []


def too_few(data: DataConfig) -> list[str]:
    """A sentence if a batch norm of the method's heads would see a single sample."""
    return [] if data.global_batch > 1 else [f"data.global_batch is {data.global_batch}: batch norm needs at least 2"]


def not_positive(config: MethodConfig, *keys: str) -> list[str]:
    """A sentence for each of these keys that is 0 or less."""
    return [f"method.{key} is {getattr(config, key)}: it must be above 0" for key in keys if getattr(config, key) <= 0]


def too_cold(config: MethodConfig, *keys: str) -> list[str]:
    """A sentence for each of these temperatures that is above 0 and below the least that losses can take."""
    least = 1 / LARGEST_SCALE
    return [
        f"method.{key} is {getattr(config, key)}: it must be at least {least:.3g} (1 / {LARGEST_SCALE:g})"
        for key in keys
        if 0 < getattr(config, key) < least
    ]

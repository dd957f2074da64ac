"""Hyper-parameters of every method, one dataclass each (no torch here). ``method.name`` selects the class."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from mmpretrain.losses.schema import LARGEST_SCALE


class MixLevel(StrEnum):
    """What M3CoL mixes. ``auto`` is the paper: embeddings of texts, raw inputs of everything else."""

    auto = "auto"
    input = "input"
    embedding = "embedding"


class MixScope(StrEnum):
    """Among which samples: groups of consecutive stream positions, or the whole global batch."""

    group = "group"
    global_batch = "global_batch"


@dataclass
class MethodConfig:
    """What every method has, and what it says of itself.

    uses_labels: the method needs a label per sample (and ships a classifier). title, arxiv: of its paper.
    """

    name: str = ""

    uses_labels: ClassVar[bool] = False
    title: ClassVar[str] = ""
    arxiv: ClassVar[str | None] = None

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return []

    def bind(self, local_batch: int) -> None:
        """Fill what defaults to the local batch of the run's first start; stored with the run from then on."""

    def batch_problems(self, local_batch: int) -> list[str]:
        """What stands against ``local_batch`` samples per rank, one sentence each."""
        return []


@dataclass
class ClipConfig(MethodConfig):
    """CLIP (Radford et al. 2021). temperature: initial value; max_scale: upper limit of 1 / temperature."""

    name: str = "clip"
    temperature: float = 0.07
    max_scale: float = 100.0

    title = "CLIP: Learning Transferable Visual Models From Natural Language Supervision"
    arxiv = "2103.00020"

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = _positive(self, "temperature", "max_scale") + _not_too_cold(self, "temperature")
        if self.max_scale > LARGEST_SCALE:
            found.append(f"method.max_scale is {self.max_scale}: it must be at most {LARGEST_SCALE:g}")
        if not found and 1 / self.temperature > self.max_scale:
            found.append(
                f"method.temperature {self.temperature} starts above method.max_scale {self.max_scale}:"
                f" use at least {1 / self.max_scale:g}"
            )
        return found


@dataclass
class M3colConfig(MethodConfig):
    """M3CoL (Kumar et al., arXiv 2409.17777).

    beta: both parameters of the Beta distribution of the mixing weight. select: probability that a sample is mixed.
    temperature, soft_temperature: of the mixup loss and of the soft loss. weight: of the contrastive term against the
    cross-entropies (0: cross-entropy only). switch: share of the epochs after which the soft loss replaces the mixup
    loss. mix_group: samples that mix among themselves (default: the local batch of the run's first start).
    detach_targets: no gradient through the soft targets. official_aliasing, official_self_pairs: the released code's
    deviations from the paper (both sides mixed; weight of a sample mixed with itself lost).
    """

    name: str = "m3col"
    beta: float = 0.15
    select: float = 0.5
    temperature: float = 0.1
    soft_temperature: float = 0.125
    weight: float = 0.1
    switch: float = 0.33
    mix_level: MixLevel = MixLevel.auto
    mix_scope: MixScope = MixScope.group
    mix_group: int | None = None
    detach_targets: bool = False
    official_aliasing: bool = False
    official_self_pairs: bool = False

    uses_labels = True
    title = "M3CoL: Harnessing Shared Relations via Multimodal Mixup Contrastive Learning for Multimodal Classification"
    arxiv = "2409.17777"

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = _positive(self, "beta", "temperature", "soft_temperature")
        found += _not_too_cold(self, "temperature", "soft_temperature")
        for key in ("select", "switch"):
            if not 0 <= getattr(self, key) <= 1:
                found.append(f"method.{key} is {getattr(self, key)}: it must lie between 0 and 1")
        if self.weight < 0:
            found.append(f"method.weight is {self.weight}: it must be 0 or more")
        if self.mix_group is not None and self.mix_group < 1:
            found.append(f"method.mix_group is {self.mix_group}: it must be at least 1")
        if self.mix_scope is MixScope.global_batch and self.mix_level is not MixLevel.embedding:
            found.append("method.mix_scope=global_batch mixes after the gather: it needs method.mix_level=embedding")
        return found

    def bind(self, local_batch: int) -> None:
        """The default mixing group is the local batch of the first start."""
        if self.mix_group is None and self.mix_scope is MixScope.group:
            self.mix_group = local_batch

    def batch_problems(self, local_batch: int) -> list[str]:
        """The groups must tile the local batch, or samples of different ranks would have to mix."""
        if self.mix_group is None or self.mix_scope is not MixScope.group or local_batch % self.mix_group == 0:
            return []
        fitting = [size for size in range(1, local_batch + 1) if local_batch % size == 0]
        nearest = min(fitting, key=lambda size: abs(size - (self.mix_group or 0)))
        return [
            f"method.mix_group={self.mix_group} does not divide the local batch of {local_batch} samples:"
            f" the nearest that does is {nearest}"
        ]


METHODS: dict[str, type[MethodConfig]] = {"clip": ClipConfig, "m3col": M3colConfig}


def _positive(config: MethodConfig, *keys: str) -> list[str]:
    return [f"method.{key} is {getattr(config, key)}: it must be above 0" for key in keys if getattr(config, key) <= 0]


def _not_too_cold(config: MethodConfig, *keys: str) -> list[str]:
    least = 1 / LARGEST_SCALE
    return [
        f"method.{key} is {getattr(config, key)}: it must be at least {least:.3g} (1 / {LARGEST_SCALE:g})"
        for key in keys
        if 0 < getattr(config, key) < least
    ]

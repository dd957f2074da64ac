"""Hyper-parameters of M3CoL (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import MethodConfig, ModelParts, not_positive, too_cold
from mmpretrain.config.model import ModelConfig


class MixLevel(StrEnum):
    """What M3CoL mixes. ``auto`` is the paper: embeddings of texts and sequences, raw inputs of the rest."""

    auto = "auto"
    input = "input"
    embedding = "embedding"


class MixScope(StrEnum):
    """Among which samples: groups of consecutive stream positions, or the whole global batch."""

    group = "group"
    global_batch = "global_batch"


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

    implementation = "mmpretrain.methods.m3col.M3col"
    title = "M3CoL: Harnessing Shared Relations via Multimodal Mixup Contrastive Learning for Multimodal Classification"
    arxiv = "2409.17777"

    @property
    def needs_labels(self) -> bool:
        """The classifier learns from them."""
        return True

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """With a classifier."""
        return ModelParts(embed_dim=model.embed_dim, classifier=True)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = not_positive(self, "beta", "temperature", "soft_temperature")
        found += too_cold(self, "temperature", "soft_temperature")
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

"""Hyper-parameters of M3CoL (no torch here)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import MethodConfig, ModelParts, not_positive, too_cold
from mmpretrain.config.model import ModelConfig


class MixLevel(StrEnum):
    """What M3CoL mixes."""

    auto = "auto"
    """As in the paper: embeddings of texts, sequences and sounds, raw inputs of all other modalities."""

    input = "input"
    """Raw inputs, which texts, sequences and sounds do not allow."""

    embedding = "embedding"
    """Embeddings."""


class MixScope(StrEnum):
    """Among which samples M3CoL mixes."""

    group = "group"
    """Among ``mix_group`` consecutive samples of the stream."""

    global_batch = "global_batch"
    """Among the whole global batch; needs ``mix_level=embedding``."""


@dataclass
class M3colConfig(MethodConfig):
    """M3CoL (Kumar et al., arXiv 2409.17777): classifiers, and a contrast of mixed with clean samples. Needs labels."""

    name: str = "m3col"

    beta: float = 0.15
    """Both parameters of the Beta distribution of the mixing weight."""

    select: float = 0.5
    """Probability that a sample is mixed."""

    temperature: float = 0.1
    """Temperature of the mixup loss; fixed."""

    soft_temperature: float = 0.125
    """Temperature of the soft loss; fixed."""

    weight: float = 0.1
    """Weight of the contrastive term beside the cross-entropies; 0: cross-entropies only."""

    unimodal_weight: float = 1.0
    """Weight of each modality's own cross-entropy; 0: there are no unimodal heads."""

    switch: float = 0.33
    """Share of the epochs (0 to 1) after which the soft loss replaces the mixup loss."""

    mix_level: MixLevel = MixLevel.auto
    """What is mixed."""

    mix_scope: MixScope = MixScope.group
    """Among which samples."""

    mix_group: int | None = None
    """Number of samples that mix among themselves; must divide a rank's batch. null: a rank's batch at the first start
    of the run."""

    detach_targets: bool = False
    """Whether no gradient flows through the soft targets."""

    official_aliasing: bool = False
    """A deviation of the released code from the paper: both sides of the mixup loss are mixed."""

    official_self_pairs: bool = False
    """A deviation of the released code from the paper: a sample that is mixed with itself loses part of its weight."""

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
        for key in ("weight", "unimodal_weight"):
            if getattr(self, key) < 0:
                found.append(f"method.{key} is {getattr(self, key)}: it must be 0 or more")
        if self.mix_group is not None and self.mix_group < 1:
            found.append(f"method.mix_group is {self.mix_group}: it must be at least 1")
        if self.mix_scope is MixScope.global_batch and self.mix_level is not MixLevel.embedding:
            found.append("method.mix_scope=global_batch mixes after the gather: it needs method.mix_level=embedding")
        return found

    def bind(self, local_batch: int) -> None:
        """The default mixing group is the local batch of the first start."""
        if self.mix_group is None and self.mix_scope is MixScope.group:
            self.mix_group = local_batch

    def switch_epoch(self, total_epochs: float) -> float:
        """``int(switch * total_epochs)`` as published; unrounded where that leaves a phase out that was asked for."""
        exact = self.switch * total_epochs
        # 0.29 * 100 is 28.999...: a product that is meant to be whole must not lose an epoch.
        whole = math.floor(exact + 1e-9)
        return exact if whole == 0 or self.switch == 1 else whole

    def other_length(self, done: float, before: float, after: float) -> tuple[list[str], list[str]]:
        """The switch between the losses lies at a share of all epochs; a run never goes back to the first one."""
        old, new = self.switch_epoch(before), self.switch_epoch(after)
        if self.weight == 0 or old == new:
            return [], []
        lay = f"lay at {old:.4g} of {before:.4g}"
        said = f"method.switch={self.switch} lies at epoch {new:.4g} of {after:.4g}, and {lay}"
        if old <= done < new:
            return [
                f"{said}: after {done:.4g} epochs the run has left the mixup loss and would go back to it; start a new"
                " run from this one (init_from), with method.switch=0 for the soft loss alone"
            ], []
        return [], [said]

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

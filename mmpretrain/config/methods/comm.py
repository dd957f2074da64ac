"""Hyper-parameters of CoMM (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import Exchange, MethodConfig, ModelParts, not_positive, too_cold, too_few
from mmpretrain.config.model import ModelConfig


class Pairing(StrEnum):
    """What is compared, and how."""

    paper = "paper"
    """As the paper prints it: plain single modalities look for the augmented whole (InfoNCE one way); terms are added
    up."""

    code = "code"
    """As the released code has it, which made the published figures: augmented single modalities look for the whole of
    the other view (NT-Xent); mean over the terms."""


class Terms(StrEnum):
    """Which terms of the loss there are."""

    all = "all"
    """Those of single modalities and that of the whole."""

    unimodal = "unimodal"
    """Only those of single modalities (an ablation of the paper)."""

    fused = "fused"
    """Only that of the whole (an ablation of the paper)."""


@dataclass
class CommConfig(MethodConfig):
    """CoMM (Dufumier et al., arXiv 2409.07402): a fusion of all modalities, compared in two augmented views.

    The fusion is set under ``model.fusion``, the views under ``data.modalities.NAME.augment``. More in
    docs/methods/comm.md.
    """

    name: str = "comm"

    pairing: Pairing = Pairing.paper
    """What is compared, and how."""

    terms: Terms = Terms.all
    """Which terms of the loss there are."""

    temperature: float = 0.1
    """Divides cosine similarities; fixed."""

    head_hidden: int = 512
    """Hidden units of the projection head, which does not ship."""

    head_width: int = 256
    """Width of what the projection head gives."""

    takes_missing = True
    implementation = "mmpretrain.methods.comm.Comm"
    title = "What to align in multimodal contrastive learning?"
    arxiv = "2409.07402"

    @property
    def augments(self) -> bool:
        """Every term looks at augmented views."""
        return True

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """With a fusion, whose width is that of all embeddings."""
        return ModelParts(fusion=model.fusion.arguments())

    def exchange(self, widths: Mapping[str, int]) -> Exchange:
        """Projections: the keys, which are wholes, and with NT-Xent the queries too; each once."""
        alone = 0 if self.terms is Terms.fused else 2 * len(widths)
        whole = 0 if self.terms is Terms.unimodal else 1
        keys = 2 if alone else 1
        sides = keys if self.pairing is Pairing.paper else 2 + alone
        return Exchange(sides * self.head_width, whole + alone)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return not_positive(self, "temperature", "head_hidden", "head_width") + too_cold(self, "temperature")

    def data_problems(self, data: DataConfig) -> list[str]:
        """What this dataset lacks for the method, one sentence each."""
        return super().data_problems(data) + too_few(data)

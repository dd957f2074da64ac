"""Hyper-parameters of CoMM (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import Exchange, MethodConfig, ModelParts, not_positive, too_cold, too_few
from mmpretrain.config.model import ModelConfig


class Pairing(StrEnum):
    """What is compared, and how: as the paper prints it, or as the released code has it, which made its figures.

    paper: plain single modalities look for the augmented whole (InfoNCE one way), terms added up. code: augmented ones
    and the whole of the other view, NT-Xent, mean over the terms.
    """

    paper = "paper"
    code = "code"


class Terms(StrEnum):
    """Which terms of the loss there are: all, or (the paper's ablations) those of single modalities, or that of the
    whole."""

    all = "all"
    unimodal = "unimodal"
    fused = "fused"


@dataclass
class CommConfig(MethodConfig):
    """CoMM (Dufumier et al., arXiv 2409.07402).

    temperature: divides cosine similarities, fixed. head_hidden, head_width: hidden units and output of the projection
    head, which does not ship.
    """

    name: str = "comm"
    pairing: Pairing = Pairing.paper
    terms: Terms = Terms.all
    temperature: float = 0.1
    head_hidden: int = 512
    head_width: int = 256

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

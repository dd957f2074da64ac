"""Hyper-parameters of CoMM's supervised fine-tuning (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig, LabelForm
from mmpretrain.config.methods.base import Exchange, MethodConfig, ModelParts, not_positive, too_cold
from mmpretrain.config.model import ModelConfig


class SupervisedLoss(StrEnum):
    """What the embedding of all modalities learns from labels."""

    contrastive = "contrastive"
    """SupCon of two augmented views, without a head: samples of one class belong together. The paper's, for one class
    per sample."""

    cross_entropy = "cross_entropy"
    """Cross-entropy of a linear classifier, which ships; for one class per sample."""

    binary = "binary"
    """Binary cross-entropy of a linear classifier, which ships, mean over the classes; for several classes per
    sample."""

    squared = "squared"
    """Squared error of a linear head, which does not ship; for measured values."""

    absolute = "absolute"
    """Absolute error of a linear head, which does not ship; for measured values."""

    @property
    def contrasts(self) -> bool:
        """Whether samples are compared with one another."""
        return self is SupervisedLoss.contrastive

    @property
    def classifies(self) -> bool:
        """Whether a classifier is learned."""
        return self in (SupervisedLoss.cross_entropy, SupervisedLoss.binary)

    @property
    def form(self) -> LabelForm:
        """The labels that it learns from."""
        if self is SupervisedLoss.binary:
            return LabelForm.several
        return LabelForm.one_class if self.contrasts or self.classifies else LabelForm.value


@dataclass
class CommSupervisedConfig(MethodConfig):
    """CoMM's supervised fine-tuning (Dufumier et al., arXiv 2409.07402): labels train the embedding of all modalities.

    Needs labels. The fusion is set under ``model.fusion``. More in docs/methods/comm.md.
    """

    name: str = "comm_supervised"

    loss: SupervisedLoss = SupervisedLoss.contrastive
    """What the embedding of all modalities learns from labels; must fit ``data.label.form``."""

    temperature: float = 0.07
    """``loss=contrastive``: divides cosine similarities; fixed."""

    takes_missing = True
    implementation = "mmpretrain.methods.comm_supervised.CommSupervised"
    title = "What to align in multimodal contrastive learning?"
    arxiv = "2409.07402"

    @property
    def contrasts(self) -> bool:  # type: ignore[override]
        """Only SupCon compares samples."""
        return self.loss.contrasts

    @property
    def augments(self) -> bool:
        """Only what compares samples looks at two augmented views."""
        return self.loss.contrasts

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """With a fusion, and with a classifier of its output where one is learned."""
        classifies = self.loss.classifies
        return ModelParts(fusion=model.fusion.arguments(), classifier=classifies, fused_classifier=classifies)

    def exchange(self, widths: Mapping[str, int]) -> Exchange:
        """Both views of the whole."""
        return Exchange(2 * max(widths.values()), 1) if self.loss.contrasts else Exchange(0, 0)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return not_positive(self, "temperature") + too_cold(self, "temperature")

    def data_problems(self, data: DataConfig) -> list[str]:
        """What this dataset lacks for the method, one sentence each."""
        found = super().data_problems(data)
        if not data.labeled:
            return [*found, f"method={self.name} learns from labels, but data.classes is null"]
        if data.label.form is not self.loss.form:
            fitting = [loss.value for loss in SupervisedLoss if loss.form is data.label.form]
            found.append(
                f"method.loss={self.loss} learns from labels of the form {self.loss.form}, but data.label.form is"
                f" {data.label.form}: set method.loss to {' or '.join(fitting)}"
            )
        return found

"""CoMM's supervised fine-tuning (Dufumier et al., ICLR 2025, arXiv 2409.07402, appendix on experimental details).

Z is the fusion's embedding of all modalities of a sample, without a projection head. For one class per sample, with
z', z'' of unit length from two augmented views, the 2 N rows r of both, A(i) all of them but row i, P(i) those of i's
class among A(i) (SupCon, arXiv 2004.11362, equation 2):

    L = 1/(2N) sum_i  -1/|P(i)| sum_{p in P(i)} log [ exp(r_i . r_p / temperature) / sum_{j in A(i)} exp(r_i . r_j
        / temperature) ]

Otherwise a linear head W Z + b of the inputs in one view learns a cross-entropy (one class), the mean over the classes
of binary cross-entropies (several), or a squared or absolute error (a measured value).

What ships are encoders and fusion, and the head where it is a classifier.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmpretrain.config.methods.names import CommSupervisedConfig, SupervisedLoss
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Labels, Pair
from mmpretrain.losses.similarity import at_least_float32
from mmpretrain.methods.base import Features, Losses, Method
from mmpretrain.methods.comm import FUSED, VIEWS
from mmpretrain.models.heads_mmpretrain import init_linear
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel


class CommSupervised(Method):
    """See the module's docstring; labels, and a model with a fusion. heads: ``value``, of measured values."""

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, CommSupervisedConfig) and model.fusion is not None
        self.settings = config.method
        if not (self.settings.loss.contrasts or self.settings.loss.classifies):
            self.heads["value"] = value = nn.Linear(model.fusion.width, config.data.label.numbers)
            init_linear(value)

    def prepare(self, batch: Batch, step: Step) -> Batch:
        """Draw two views, if they are compared."""
        if not self.settings.loss.contrasts:
            return batch
        return replace(batch, views={name: self.augmenter.view(batch, name, step) for name in VIEWS})

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model per view, or one on the inputs."""
        if self.settings.loss.contrasts:
            fused = {view: model(**inputs).fused_embeds for view, inputs in batch.views.items()}
            return Features.of(batch, {}, fused=fused)
        output = model(**batch.inputs)
        if self.settings.loss.classifies:
            return Features.of(batch, {}, output.logits)
        return Features.of(batch, {}, fused={FUSED: output.fused_embeds})

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """One term, named after the loss; where classes are learned its accuracy as a diagnostic."""
        assert features.labels is not None
        name, labels = self.settings.loss.value, features.labels
        if self.settings.loss.contrasts:
            first, second = (features.fused[view] for view in VIEWS)
            pair = Pair(first, second, Labels(labels), same_side=True)
            result = self.contrastive([pair], features, scale=1 / self.settings.temperature, world=world)[0]
            return Losses({name: result.loss}, diagnostics={f"accuracy/{name}": result.accuracy})
        if not self.settings.loss.classifies:
            found = self.heads["value"](features.fused[FUSED]).view(labels.shape)
            error = F.mse_loss if self.settings.loss is SupervisedLoss.squared else F.l1_loss
            return Losses({name: error(found, labels.to(found.dtype))})
        assert features.logits is not None
        term, hits = _classified(at_least_float32(features.logits), labels)
        return Losses({name: term}, diagnostics={f"accuracy/{name}": hits})


def _classified(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """[b, C] and labels [b] or [b, C] -> the loss, and the share of labels that are right."""
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).to(logits.dtype).mean()
    right = (logits > 0) == labels.bool()
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype)), right.to(logits.dtype).mean()

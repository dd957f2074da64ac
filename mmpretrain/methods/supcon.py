"""SupCon: samples of one class belong together (Khosla et al., NeurIPS 2020, arXiv 2004.11362, equation 2).

The modalities of a sample are its views. For modalities a and b with r_m = n(g_m(p_m)), g_m a projection head of its
own per modality, the 2 N rows r of both, and A(i) all of them but row i, P(i) those of i's class among A(i):

    L_ab = 1/(2N) sum_i  -1/|P(i)| sum_{p in P(i)} log [ exp(r_i . r_p / temperature) / sum_{j in A(i)} exp(r_i . r_j
           / temperature) ]
    L    = mean of L_ab over all unordered pairs of modalities       (two modalities: SupCon itself)

What ships are the encoders; the heads exist only in training.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch

from mmpretrain.config.methods.names import SupconConfig
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Labels, Pair
from mmpretrain.methods.base import Features, Losses, Method
from mmpretrain.models.heads_mmpretrain import MLPHead
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel


class Supcon(Method):
    """See the module's docstring; two or more modalities, labels. heads: ``projection_MODALITY``."""

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, SupconConfig)
        self.settings = config.method
        for name in self.modalities:
            sizes = (model.embed_sizes[name], self.settings.hidden, self.settings.width)
            self.heads[f"projection_{name}"] = MLPHead(*sizes)
        self.pairs = list(combinations(self.modalities, 2))

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model."""
        return Features.of(batch, model(**batch.inputs).embeds)

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """Term ``supcon``; the accuracy of every pair as diagnostics."""
        assert features.labels is not None
        targets = Labels(features.labels)
        rows = {name: self.heads[f"projection_{name}"](embed) for name, embed in features.embeds.items()}
        pairs = [Pair(rows[a], rows[b], targets, same_side=True) for a, b in self.pairs]
        results = self.contrastive(pairs, features, scale=1 / self.settings.temperature, world=world)
        accuracies = {f"accuracy/{a}-{b}": r.accuracy for (a, b), r in zip(self.pairs, results, strict=True)}
        return Losses({"supcon": torch.stack([r.loss for r in results]).mean()}, diagnostics=accuracies)

"""CLIP: symmetric InfoNCE with a learnable temperature (Radford et al., 2021, arXiv 2103.00020).

For modalities a and b with unit-length embeddings of the whole batch, s = exp(logit_scale), S = s n(p_a)
n(p_b)^T:

    L_ab = 1/2 [ - 1/N sum_i log softmax_j(S_i.)_i  -  1/N sum_j log softmax_i(S_.j)_j ]
    L    = mean of L_ab over all unordered pairs of modalities       (two modalities: CLIP itself)

Of samples that lack modalities, L_ab has those with both a and b, and the mean the pairs that some sample has. Hard
negatives of b (``data.modalities.b.negatives``) are further keys of the rows of a, as NegCLIP has it (Yuksekgonul et
al., ICLR 2023, arXiv 2210.01936); likely false negatives may be left out (``objective.false_negative_margin``).

logit_scale starts at log(1 / temperature) and is held at or below log(max_scale) by value after every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from torch import Tensor

from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.temperature import Temperature
from mmpretrain.methods.base import Features, Losses, Method, Shipped, require_equal_widths
from mmpretrain.methods.hard_negatives import encode_negatives
from mmpretrain.methods.held_pairs import held_pairs
from mmpretrain.methods.shipped_similarity import with_softmax
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.models.similarity_mmpretrain import SOFTMAX


class Clip(Method):
    """See the module's docstring; two or more modalities, no labels.

    heads: ``temperature``. Raises ValueError when the modalities' embeddings differ in width.
    """

    similarity, similarity_heads = SOFTMAX, {"logit_scale": "temperature.logit_scale"}

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, ClipConfig)
        require_equal_widths(model)
        self.temperature = Temperature(config.method.temperature, config.method.max_scale)
        self.heads["temperature"] = self.temperature
        self.pairs = list(combinations(self.modalities, 2))

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model, and one for hard negatives, if there are any."""
        embeds = model(**batch.inputs).embeds
        return Features.of(batch, embeds, negatives=encode_negatives(model, batch))

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """Term ``contrastive``; of every pair the accuracy, and with a margin what is left out, and the scale as
        diagnostics."""
        scale = self.temperature()
        held = held_pairs(self.pairs, features, world)
        results = self.contrastive(list(held.pairs.values()), features, scale=scale, world=world)
        return Losses(
            terms={"contrastive": held.mean(results)},
            diagnostics=held.diagnostics(results) | {"scale": scale.detach().squeeze()},
        )

    def ship(self, state: Mapping[str, Tensor], processor: MMPretrainProcessor) -> Shipped:
        """The model, and the scale."""
        return with_softmax(super().ship(state, processor), self.temperature.logit_scale)

    def clamp_(self) -> None:
        """Hold the temperature's scale at or below its limit."""
        self.temperature.clamp_()

"""SigLIP: the sigmoid loss, every pair a question of its own (Zhai et al., ICCV 2023, arXiv 2303.15343, equation 1).

For modalities a and b with unit-length embeddings u, v of the whole batch's N samples, s = exp(t'), z_ii = 1 and
z_ij = -1 otherwise:

    L_ab = - 1/N sum_ij log sigmoid(z_ij (s u_i . v_j + bias))
    L    = mean of L_ab over all unordered pairs of modalities       (two modalities: SigLIP itself)

Of samples that lack modalities, L_ab has those with both a and b, and the mean the pairs that some sample has. Hard
negatives of b (``data.modalities.b.negatives``) are further v_j with z = -1 in every row of a.

t' starts at log 10 and bias at -10, so that the loss starts near that of negatives which are already told apart. t'
has no limit unless ``max_scale`` is set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.config.methods.names import SiglipConfig
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.temperature import Temperature
from mmpretrain.methods.base import Features, Losses, Method, Shipped, require_equal_widths
from mmpretrain.methods.hard_negatives import encode_negatives
from mmpretrain.methods.held_pairs import held_pairs
from mmpretrain.methods.shipped_similarity import with_sigmoid
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.models.similarity_mmpretrain import SIGMOID


class Bias(nn.Module):
    """A learnable number that is added to similarities, a parameter of shape (1,)."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def forward(self) -> Tensor:
        """The bias, [1]."""
        return self.value


class Siglip(Method):
    """See the module's docstring; two or more modalities, no labels.

    heads: ``temperature``, ``bias``. Raises ValueError when the modalities' embeddings differ in width.
    """

    similarity = SIGMOID
    similarity_heads = {"logit_scale": "temperature.logit_scale", "logit_bias": "bias.value"}  # noqa: RUF012

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, SiglipConfig)
        require_equal_widths(model)
        settings = config.method
        self.temperature = Temperature(settings.temperature, settings.max_scale or math.inf)
        self.heads["temperature"] = self.temperature
        self.heads["bias"] = Bias(settings.bias)
        self.pairs = list(combinations(self.modalities, 2))

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model, and one for hard negatives, if there are any."""
        embeds = model(**batch.inputs).embeds
        return Features.of(batch, embeds, negatives=encode_negatives(model, batch))

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """Term ``sigmoid``; accuracy of every pair, the scale and the bias as diagnostics."""
        scale, bias = self.temperature(), self.heads["bias"]()
        held = held_pairs(self.pairs, features, world)
        results = sigmoid_contrastive(
            list(held.pairs.values()),
            scale=scale,
            bias=bias,
            world=world,
            settings=self.contrast,
            sample_ids=features.ids,
            metrics=self.measuring,
        )
        return Losses(
            terms={"sigmoid": held.mean(results)},
            diagnostics=held.diagnostics(results)
            | {"scale": scale.detach().squeeze(), "bias": bias.detach().squeeze()},
        )

    def ship(self, state: Mapping[str, Tensor], processor: MMPretrainProcessor) -> Shipped:
        """The model, the scale and the bias."""
        return with_sigmoid(super().ship(state, processor), self.temperature.logit_scale, self.heads["bias"]())

    def clamp_(self) -> None:
        """Hold the temperature's scale at or below its limit."""
        self.temperature.clamp_()

"""Cross+Self: contrast between modalities, and between augmented views of each.

SLIP (Mu et al., arXiv 2112.12750) for any modalities: a baseline of CoMM (arXiv 2409.07402) and FactorCL. With x_m the
plain inputs, x'_m and x''_m two augmented views, e_m the encoder and h_m a projection head per modality:

    L = mean over pairs of Cross(x_a, x_b)  +  self_weight * sum_m NTX(h_m(e_m(x'_m)), h_m(e_m(x''_m)))

    Cross = NTX(h_a(e_a(x_a)), h_b(e_b(x_b)))         cross=nt_xent, with the same heads
            CLIP's loss of linear projections         cross=clip, with a learnable temperature

NTX is InfoNCE whose negatives are also the other rows of a row's own side (SimCLR). Every batch of embeddings goes
through its head alone, with batch norm statistics of its own. What ships are the encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.config.methods.names import CrossInputs, CrossLoss, CrossSelfConfig
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, PairLoss
from mmpretrain.losses.temperature import Temperature
from mmpretrain.methods.base import Embeds, Features, Losses, Method
from mmpretrain.methods.projection import ProjectionHead
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel

VIEWS = ("first", "second")


class CrossSelf(Method):
    """See the module's docstring; two or more modalities, no labels.

    heads: ``projection_MODALITY``; with cross=clip also ``linear_MODALITY`` and ``temperature``.
    """

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, CrossSelfConfig)
        self.settings = settings = config.method
        self.pairs = list(combinations(self.modalities, 2))
        for name, size in model.embed_sizes.items():
            self.heads[f"projection_{name}"] = ProjectionHead(size, settings.hidden, settings.width)
        self.temperature: Temperature | None = None
        if settings.cross is CrossLoss.clip:
            for name, size in model.embed_sizes.items():
                self.heads[f"linear_{name}"] = nn.Linear(size, settings.clip_width, bias=False)
            self.temperature = Temperature(settings.clip_temperature, settings.max_scale)
            self.heads["temperature"] = self.temperature

    def prepare(self, batch: Batch, step: Step) -> Batch:
        """Draw the two views of every sample, if there are self terms."""
        if not self.settings.augments:
            return batch
        return replace(batch, views={name: self.augmenter.view(batch, name, step) for name in VIEWS})

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model per view, and one on the plain inputs unless ``cross_inputs=view``."""
        views = {name: model(**inputs).embeds for name, inputs in batch.views.items()}
        plain = self.settings.cross_inputs is CrossInputs.plain
        return Features.of(batch, model(**batch.inputs).embeds if plain else views[VIEWS[0]], views=views)

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """Terms ``cross`` and ``self``; accuracies of all comparisons, and CLIP's scale, as diagnostics."""
        pairs, scale = self._cross(features.embeds)
        results = self.contrastive(pairs, features, scale=scale, world=world)
        terms = {"cross": torch.stack([r.loss for r in results]).mean()}
        diagnostics = _diagnostics([f"{a}-{b}" for a, b in self.pairs], results)
        if isinstance(scale, Tensor):
            diagnostics["scale"] = scale.detach().squeeze()
        if self.settings.augments:
            first, second = (self._project(features.views[view]) for view in VIEWS)
            pairs = [Pair(first[name], second[name], same_side=True) for name in self.modalities]
            results = self.contrastive(pairs, features, scale=1 / self.settings.temperature, world=world)
            terms["self"] = torch.stack([r.loss for r in results]).sum()
            diagnostics |= _diagnostics(self.modalities, results)
        return Losses(terms, {"self": self.settings.self_weight}, diagnostics)

    def clamp_(self) -> None:
        """Hold the temperature's scale at or below its limit, if there is one."""
        if self.temperature is not None:
            self.temperature.clamp_()

    def _cross(self, embeds: Embeds) -> tuple[list[Pair], Tensor | float]:
        if self.temperature is not None:
            rows = {name: self.heads[f"linear_{name}"](embed) for name, embed in embeds.items()}
            return [Pair(rows[a], rows[b]) for a, b in self.pairs], self.temperature()
        rows = self._project(embeds)
        return [Pair(rows[a], rows[b], same_side=True) for a, b in self.pairs], 1 / self.settings.temperature

    def _project(self, embeds: Embeds) -> Embeds:
        return {name: self.heads[f"projection_{name}"](embed) for name, embed in embeds.items()}


def _diagnostics(names: Sequence[str], results: Sequence[PairLoss]) -> dict[str, Tensor]:
    found = list(zip(names, results, strict=True))
    accuracies = {f"accuracy/{name}": result.accuracy for name, result in found}
    return accuracies | {f"masked/{name}": r.left_out for name, r in found if r.left_out is not None}

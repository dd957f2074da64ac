"""C-MCR: connecting multi-modal contrastive representations (Wang et al., NeurIPS 2023, arXiv 2305.14381).

Two frozen spaces have a modality in common. Of each sample of it, i, there are its embeddings in either space, t1_i and
t2_i, and its pseudo partners: v_i, made of images in the first space that resemble t1_i, and a_i, made of sounds in the
second that resemble t2_i (`mmpretrain pair`). Projectors f1 and f2 bring both spaces into one; n(x) = x / |x|:

    z   <- n(z + eps),  eps ~ N(0, noise I),  for z in t1, v, t2, a, fresh at every step
    T1 = n(f1(t1)),  V = n(f1(v)),  T2 = n(f2(t2)),  A = n(f2(a))

    L = NCE(T1, T2; temperature)                                                        shared
      + partner_weight NCE(V, A; partner_temperature)                                   partner
      + intra 1/2 1/N sum_i (|T1_i - V_i| + |T2_i - A_i|)                               intra

NCE is symmetric InfoNCE. The pull of the third term is without a push: the gap between the modalities of one space
closes, so that what connects t1 and t2 connects images and sounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpretrain.config.methods.cmcr import PARTNER, SHARED
from mmpretrain.config.methods.names import CmcrConfig, Passes
from mmpretrain.config.model import ConnectedSpace
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.random import normal
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair
from mmpretrain.losses.similarity import unit_rows
from mmpretrain.methods.base import Embeds, Features, Losses, Method, Shipped
from mmpretrain.methods.cmcr_release import release_problems, with_spaces
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor

EPS = 1e-12  # below the root of a distance, whose gradient at 0 would be infinite


class Cmcr(Method):
    """See the module's docstring; the four vector modalities of ``mmpretrain pair``, no labels, no heads."""

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, CmcrConfig)
        self.config, self.settings = config, config.method

    @staticmethod
    def release_problems(config: Config) -> list[str]:
        """What stands against the releases of both spaces; hashes their files."""
        return release_problems(config)

    def prepare(self, batch: Batch, step: Step) -> Batch:
        """Add noise to all embeddings, and bring them to length 1; a function of seed and stream position."""
        return replace(batch, inputs={n: self._noisy(n, inputs, batch, step) for n, inputs in batch.inputs.items()})

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model; joint: a space's shared and partner rows are one batch."""
        if self.settings.passes is Passes.separate:
            return Features.of(batch, model(**batch.inputs).embeds)
        values = {name: inputs["values"] for name, inputs in batch.inputs.items()}
        both = {SHARED[s]: {"values": torch.cat([values[SHARED[s]], values[PARTNER[s]]])} for s in ConnectedSpace}
        output = model(**both).embeds
        halves = {s: output[SHARED[s]].chunk(2) for s in ConnectedSpace}
        embeds = {names[s]: halves[s][i] for i, names in enumerate((SHARED, PARTNER)) for s in ConnectedSpace}
        return Features.of(batch, {name: embeds[name] for name in batch.inputs})

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """Terms ``shared``, ``partner`` and ``intra``, those of weight 0 left out; accuracies as diagnostics."""
        settings = self.settings
        terms, accuracies = self._contrasts(features, world)
        if settings.intra:
            terms["intra"] = intra_alignment(features.embeds)
        return Losses(terms, {"partner": settings.partner_weight, "intra": settings.intra}, accuracies)

    def ship(self, state: Mapping[str, Tensor], processor: MMPretrainProcessor) -> Shipped:
        """The projectors, and around them the spaces that the config names."""
        return with_spaces(self.config, self.model, state)

    def _noisy(self, name: str, inputs: Mapping[str, Tensor], batch: Batch, step: Step) -> dict[str, Tensor]:
        rows = F.normalize(inputs["values"], dim=1)
        if self.settings.noise:
            seed = step.sub_seed(0, "noise", name)
            noise = normal(seed, batch.positions, (rows.shape[1],)).to(rows.dtype)
            rows = F.normalize(rows + self.settings.noise**0.5 * noise, dim=1)
        return {"values": rows}

    def _contrasts(self, features: Features, world: World) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses and accuracies of shared rows and of partners, whose temperatures may differ."""
        settings = self.settings
        wanted = {"shared": (SHARED, settings.temperature)}
        if settings.partner_weight:
            wanted["partner"] = (PARTNER, settings.partner_temperature)
        terms, accuracies = {}, {}
        for term, (names, temperature) in wanted.items():
            pair = Pair(features.embeds[names[ConnectedSpace.first]], features.embeds[names[ConnectedSpace.second]])
            (result,) = self.contrastive([pair], features, scale=1 / temperature, world=world)
            terms[term], accuracies[f"accuracy/{term}"] = result.loss, result.accuracy
        return terms, accuracies


def intra_alignment(embeds: Embeds) -> Tensor:
    """Half of the mean distance, over this rank's rows, of shared rows and their partners, summed over both spaces."""
    # float32 at least: under bfloat16, near rows would be as far apart as their rounding.
    unit = {name: unit_rows(rows) for name, rows in embeds.items()}
    distances = [((unit[SHARED[s]] - unit[PARTNER[s]]).square().sum(dim=1) + EPS).sqrt() for s in ConnectedSpace]
    return 0.5 * torch.stack(distances).sum(dim=0).mean()

"""CoMM: what to align in multimodal contrastive learning (Dufumier et al., ICLR 2025, arXiv 2409.07402).

X are the plain inputs of n modalities, X' and X'' two augmented views of them, X_i is X with all but modality i masked,
and Z, Z', Z'', Z_i what encoders, fusion and a projection head make of them:

    L = - I_NCE(Z', Z'') - sum_i 1/2 [I_NCE(Z_i, Z') + I_NCE(Z_i, Z'')]          (equations 6 and 7)

    I_NCE(A, B) = 1/N sum_k log [exp s(a_k, b_k) / sum_l exp s(a_k, b_l)],    s = cosine / temperature

The first term is ``fused``, the others carry their modality's name. The released code computes something else
(pairing=code), with X'_i and X''_i, the single modalities of the augmented views, and NT-Xent, symmetric and with the
other rows of a row's own side as negatives:

    L = 1/(n+1) [NTX(Z', Z'') + sum_i 1/2 (NTX(Z'_i, Z'') + NTX(Z''_i, Z'))]

Every batch of embeddings goes through the head alone, with batch norm statistics of its own. A sample that lacks
modality i has no Z_i, neither in term i nor in those statistics; its whole is a negative like any other. What ships are
encoders and fusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.methods.names import CommConfig, Pairing, Terms
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair
from mmpretrain.methods.base import Features, Losses, Method
from mmpretrain.methods.projection import ProjectionHead
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel

VIEWS = ("first", "second")
FUSED = "fused"


class Comm(Method):
    """See the module's docstring; two or more modalities, no labels, a model with a fusion.

    heads: ``projection``, one for all embeddings.
    """

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, CommConfig) and model.fusion is not None
        self.settings = settings = config.method
        self.one_way = settings.pairing is Pairing.paper
        self.weight = 1.0 if settings.pairing is Pairing.paper else 1 / (len(self.modalities) + 1)
        self.heads["projection"] = ProjectionHead(model.fusion.width, settings.head_hidden, settings.head_width)

    def prepare(self, batch: Batch, step: Step) -> Batch:
        """Draw X' and X''."""
        return replace(batch, views={name: self.augmenter.view(batch, name, step) for name in VIEWS})

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model per view, and (pairing=paper) one on the plain inputs, if a term looks at them."""
        outputs = {view: model(**inputs) for view, inputs in batch.views.items()}
        fused = {view: output.fused_embeds for view, output in outputs.items()}
        if self.settings.terms is Terms.fused:
            return Features.of(batch, {}, fused=fused)
        if self.settings.pairing is Pairing.paper:
            return Features.of(batch, model(**batch.inputs).embeds, fused=fused)
        return Features.of(batch, {}, views={view: output.embeds for view, output in outputs.items()}, fused=fused)

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """Terms ``fused`` and MODALITY, and their accuracies as diagnostics.

        The term of a modality that less than two samples of the whole batch have is left out of this step; where the
        host must not wait for their number it is NaN. Raises ValueError, on all ranks, when no term is left
        (terms=unimodal).
        """
        pairs = self._pairs(features, world)
        if not pairs:
            raise ValueError("no modality is there in two samples of this batch: enlarge data.global_batch")
        flat = [pair for term in pairs.values() for pair in term]
        results = iter(self.contrastive(flat, features, scale=1 / self.settings.temperature, world=world))
        found = {name: [next(results) for _ in term] for name, term in pairs.items()}
        terms = {name: torch.stack([result.loss for result in of]).mean() for name, of in found.items()}
        if world.ahead and len(terms) > (FUSED in terms):
            terms = _nan_where_scarce(terms, features.present, world)
        accuracies = {
            f"accuracy/{n}": torch.stack([result.accuracy for result in of]).mean() for n, of in found.items()
        }
        return Losses(terms, dict.fromkeys(terms, self.weight), accuracies)

    def _pairs(self, features: Features, world: World) -> dict[str, list[Pair]]:
        """Every term's pairs; its loss is their mean."""
        first, second = (self._project(features.fused[view], None, world) for view in VIEWS)
        pairs = {FUSED: [self._pair(first, second)]} if self.settings.terms is not Terms.unimodal else {}
        if self.settings.terms is Terms.fused:
            return pairs
        alone = [features.embeds] if self.settings.pairing is Pairing.paper else [features.views[v] for v in VIEWS]
        for name, valid in _with_enough_samples(self.modalities, features.present, world).items():
            own = [self._project(embeds[name], valid, world) for embeds in alone]
            pairs[name] = [self._pair(own[0], second, valid), self._pair(own[-1], first, valid)]
        return pairs

    def _pair(self, query: Tensor, key: Tensor, valid: Tensor | None = None) -> Pair:
        return Pair(query, key, one_way=self.one_way, same_side=not self.one_way, query_valid=valid)

    def _project(self, rows: Tensor, valid: Tensor | None, world: World) -> Tensor:
        """[b, d] -> [b, head_width]; rows that are not valid become 0, and the head's batch norm never sees them."""
        head = self.heads["projection"]
        if valid is None:
            projected: Tensor = head(rows)
            return projected
        if world.ahead:  # how many are valid is a size, which the host would have to wait for
            assert isinstance(head, ProjectionHead)
            return head.where(rows, valid, world)
        seen = head(rows[valid])
        return seen.new_zeros(len(rows), seen.shape[1]).index_put((valid,), seen)


def _with_enough_samples(names: Sequence[str], present: dict[str, Tensor], world: World) -> dict[str, Tensor | None]:
    """Modality -> which samples have it, bool [b] (None: all), without those that a batch norm has too few samples of.

    A collective if samples may lack any modality. The same modalities on all ranks. Where the host must not wait for
    their numbers, all modalities.
    """
    if not present or world.ahead:
        return {name: present.get(name) for name in names}
    counts = _counts(present, world).tolist()
    scarce = {name for name, count in zip(present, counts, strict=True) if count < 2}
    return {name: present.get(name) for name in names if name not in scarce}


def _nan_where_scarce(terms: dict[str, Tensor], present: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """``terms``, those NaN that :func:`_with_enough_samples` would leave out: whoever sees that lets the host look. A
    collective if samples may lack any modality."""
    if not present:
        return terms
    enough = torch.where(_counts(present, world) < 2, torch.nan, 1.0)
    factors = dict(zip(present, enough.unbind(), strict=True))
    return {name: term * factors[name] if name in factors else term for name, term in terms.items()}


def _counts(present: dict[str, Tensor], world: World) -> Tensor:
    """Of how many samples of the whole batch each modality is there, [modalities]."""
    return world.all_reduce_sum(torch.stack([rows.sum() for rows in present.values()]))

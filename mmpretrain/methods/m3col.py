"""M3CoL: multimodal mixup contrastive learning for classification (Kumar et al., arXiv 2409.17777, TMLR 2025).

With p_m the embedding of modality m, y the label, g the fusion classifier and g_m the unimodal heads:

    L = CE(g([p_1; ...; p_M]), y)  +  unimodal_weight * sum_m CE(g_m(p_m), y)  +  weight * L_con
    L_con = sum_m M3Co(p~_m -> p_m+1)   in the epochs before int(switch * epochs), the modalities forming a cycle
            sum_m Soft(p_m -> p_m+1)    from then on (unrounded in runs of so few epochs that it would be 0)

M3Co is InfoNCE from mixed to clean embeddings, with lam on the sample itself and 1 - lam on its partner
(``Mixup``); Soft takes its targets from the next modality's self-similarity (``Soft``).
What is mixed: raw inputs, except of texts and sequences, whose embeddings are (``mix_level``). Classifiers see clean
samples; unimodal heads exist only in training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpretrain.config.methods.names import M3colConfig, MixLevel, MixScope
from mmpretrain.config.objective import Negatives
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch, Mixing
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Mixup, Pair, Soft
from mmpretrain.losses.similarity import at_least_float32, negatives_from, own_rows
from mmpretrain.methods.base import Features, Losses, Method, Shipped, require_equal_widths
from mmpretrain.methods.m3col_mixing import Mixer, SelfPairs, mix, mixup_targets, with_mixed_view
from mmpretrain.methods.shipped_similarity import logit_scale_of, with_softmax
from mmpretrain.models.heads_mmpretrain import MLPHead
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor


class Phase(Enum):
    """Which contrastive term a step has; its value is the term's name."""

    none = "none"
    m3co = "m3co"
    soft = "soft"


class M3col(Method):
    """See the module's docstring; two or more modalities, labels.

    heads: ``unimodal_MODALITY``, unless their weight is 0. Raises ValueError for texts or sequences mixed at input
    level, for global mixing with local negatives, and when the modalities' embeddings differ in width.
    """

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, M3colConfig) and config.data.classes is not None
        self.settings = config.method
        self.mixer = Mixer(self.settings.beta, self.settings.select)
        self.at_input = _mixed_at_input(config, self.settings.mix_level)
        self.cycle = list(zip(self.modalities, (*self.modalities[1:], self.modalities[0]), strict=True))
        require_equal_widths(model)
        if self.settings.mix_scope is MixScope.global_batch and self.contrast.negatives is Negatives.local:
            raise ValueError("method.mix_scope=global_batch excludes objective.negatives=local")
        for name in self.modalities if self.settings.unimodal_weight else ():
            sizes = (model.embed_sizes[name], config.model.classifier_hidden, config.data.classes)
            self.heads[f"unimodal_{name}"] = MLPHead(*sizes, dropout=config.model.classifier_dropout)

    @property
    def of_classes(self) -> Collection[str]:
        """All heads."""
        return list(self.heads)

    def phase(self, step: Step) -> Phase:
        """The contrastive term of a step, the same on all ranks."""
        if self.settings.weight == 0:
            return Phase.none
        return Phase.m3co if step.epoch < self.settings.switch_epoch(step.total_epochs) else Phase.soft

    def prepare(self, batch: Batch, step: Step) -> Batch:
        """Draw the mixing of every modality by groups of stream positions, and mix what is mixed at input level."""
        if self.phase(step) is not Phase.m3co or self.settings.mix_scope is MixScope.global_batch:
            return batch
        size = self.settings.mix_group or len(batch)
        drawn = {m: self.mixer.group(batch.host_positions, size, m, step) for m in self.modalities}
        mixing = {m: found.on(batch.positions.device) for m, found in drawn.items()}
        return with_mixed_view(batch, mixing, self.at_input)

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model on the clean samples, and one on the mixed inputs where there are any."""
        output = model(**batch.inputs)
        views = {name: model(**inputs).embeds for name, inputs in batch.views.items()}
        return Features.of(batch, output.embeds, output.logits, views)

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """Terms ``fusion``, ``unimodal_MODALITY`` and ``m3co`` or ``soft``; all their accuracies as diagnostics."""
        terms, diagnostics = self._cross_entropies(features)
        unimodal = self.settings.unimodal_weight
        weights = {name: unimodal for name in terms if name != "fusion" and unimodal != 1}
        phase = self.phase(step)
        if phase is Phase.none:
            return Losses(terms, weights, diagnostics)
        if phase is Phase.m3co:
            pairs, temperature = self._m3co(features, step, world), self.settings.temperature
        else:
            pairs, temperature = self._soft(features), self.settings.soft_temperature
        results = self.contrastive(pairs, features, scale=1 / temperature, world=world)
        terms[phase.value] = torch.stack([result.loss for result in results]).sum()
        diagnostics[f"accuracy/{phase.value}"] = torch.stack([result.accuracy for result in results]).mean()
        return Losses(terms, weights | {phase.value: self.settings.weight}, diagnostics)

    def ship(self, state: Mapping[str, Tensor], processor: MMPretrainProcessor) -> Shipped:
        """The model, and the scale of the last phase, if there is a contrastive term."""
        shipped = super().ship(state, processor)
        if self.settings.weight == 0:
            return shipped
        last = self.settings.soft_temperature if self.settings.switch < 1 else self.settings.temperature
        return with_softmax(shipped, logit_scale_of(last))

    def _cross_entropies(self, features: Features) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        assert features.logits is not None and features.labels is not None
        logits = {"fusion": features.logits}
        for name in self.modalities if self.settings.unimodal_weight else ():
            logits[f"unimodal_{name}"] = self.heads[f"unimodal_{name}"](features.embeds[name])
        labels = features.labels
        terms = {name: F.cross_entropy(at_least_float32(x), labels) for name, x in logits.items()}
        hits = {f"accuracy/{name}": (x.argmax(dim=1) == labels).float().mean() for name, x in logits.items()}
        return terms, hits

    def _m3co(self, features: Features, step: Step, world: World) -> list[Pair]:
        mixed = {name: self._mixed(name, features, step, world) for name in self.modalities}
        # The released code mixes in place, so that its "clean" side is mixed too.
        keys = {n: mixed[n][0] for n in mixed} if self.settings.official_aliasing else features.embeds
        return [Pair(mixed[a][0], keys[b], mixed[a][1]) for a, b in self.cycle]

    def _soft(self, features: Features) -> list[Pair]:
        embeds, detach = features.embeds, self.settings.detach_targets
        return [Pair(embeds[a], embeds[b], Soft(embeds[b], detach=detach)) for a, b in self.cycle]

    def _mixed(self, name: str, features: Features, step: Step, world: World) -> tuple[Tensor, Mixup]:
        """Mixed embeddings [b, d] of a modality, and the targets that go with them."""
        embeds = features.embeds[name]
        own = own_rows(len(embeds), negatives_from(world, self.contrast.negatives), embeds.device)
        rule = SelfPairs.assigned if self.settings.official_self_pairs else SelfPairs.added
        if self.settings.mix_scope is MixScope.global_batch:
            mixing = self.mixer.whole_batch(world.size * len(embeds), own, name, step)
            return mix(embeds, mixing, world.all_gather_rows(embeds)), mixup_targets(mixing, own, rule)
        mixing = features.mixing[name]
        mixed = features.views["mixed"][name] if name in self.at_input else mix(embeds, mixing)
        return mixed, mixup_targets(Mixing(mixing.weight, own[mixing.partner]), own, rule)


def _mixed_at_input(config: Config, level: MixLevel) -> list[str]:
    """The modalities whose raw inputs are mixed. Raises ValueError when one that has tokens is to be among them."""
    tokens = [name for name, modality in config.data.modalities.items() if modality.kind.row.tokens]
    if level is MixLevel.input and tokens:
        raise ValueError(
            f"method.mix_level=input cannot mix the tokens of {', '.join(tokens)}:"
            " use auto (embeddings of texts, sequences and sounds, inputs of the rest) or embedding"
        )
    return [] if level is MixLevel.embedding else [name for name in config.data.modalities if name not in tokens]

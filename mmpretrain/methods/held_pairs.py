"""Pairs of modalities where samples may lack some: which samples count in which pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair
from mmpretrain.losses.targets import PairLoss
from mmpretrain.methods.base import Features

Names = tuple[str, str]


@dataclass(frozen=True)
class HeldPairs:
    """pairs: of all modalities. counted: those that some sample of the whole batch has both sides of.

    The others have a loss and gradients of 0: encoders that no pair has a use for in a step get those, and every rank
    does the same in every step.
    """

    pairs: dict[Names, Pair]
    counted: list[Names]

    def mean(self, results: Sequence[PairLoss]) -> Tensor:
        """The mean loss of the pairs that count; results: of all pairs."""
        losses = torch.stack([result.loss for result in results])
        return losses.mean() if len(self.counted) == len(self.pairs) else losses.sum() / len(self.counted)

    def accuracies(self, results: Sequence[PairLoss]) -> dict[str, Tensor]:
        """Diagnostics of the pairs that count."""
        found = zip(self.pairs, results, strict=True)
        return {f"accuracy/{a}-{b}": result.accuracy for (a, b), result in found if (a, b) in self.counted}


def held_pairs(names: Sequence[Names], features: Features, world: World) -> HeldPairs:
    """The embeddings of each pair of modalities, of the samples that have both: its loss is that of these alone.

    A collective where samples may lack any. Raises ValueError, on all ranks, if no pair counts.
    """
    masks = {pair: _both([features.present[name] for name in pair if name in features.present]) for pair in names}
    some = {pair: mask for pair, mask in masks.items() if mask is not None}
    counts = world.all_reduce_sum(torch.stack([mask.sum() for mask in some.values()])).tolist() if some else []
    empty = {pair for pair, count in zip(some, counts, strict=True) if not count}
    if len(empty) == len(names):
        raise ValueError("no sample of this batch has two modalities: enlarge data.global_batch")
    pairs = {
        (a, b): Pair(features.embeds[a], features.embeds[b], query_valid=mask, key_valid=mask)
        for (a, b), mask in masks.items()
    }
    return HeldPairs(pairs, [pair for pair in names if pair not in empty])


def _both(masks: Sequence[Tensor]) -> Tensor | None:
    """bool [b], None for all samples."""
    return torch.stack(list(masks)).all(dim=0) if masks else None

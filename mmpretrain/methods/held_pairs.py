"""Pairs of modalities where samples may lack some: which samples count in which pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair
from mmpretrain.losses.targets import PairLoss
from mmpretrain.methods.base import Features

Names = tuple[str, str]


@dataclass(frozen=True)
class HeldPairs:
    """pairs: of all modalities. counted: those that some sample of the whole batch has both sides of; held: how many of
    each, on the device, where the host must not wait for the answer (``World.ahead``) and all pairs seem to count.

    The others have a loss and gradients of 0: encoders that no pair has a use for in a step get those, and every rank
    does the same in every step.
    """

    pairs: dict[Names, Pair]
    counted: list[Names]
    held: Tensor | None = None

    def mean(self, results: Sequence[PairLoss]) -> Tensor:
        """The mean loss of the pairs that count; results: of all pairs."""
        losses = torch.stack([result.loss for result in results])
        if self.held is not None:
            return losses.sum() / (self.held > 0).sum()  # not a number where none counts
        return losses.mean() if len(self.counted) == len(self.pairs) else losses.sum() / len(self.counted)

    def diagnostics(self, results: Sequence[PairLoss]) -> dict[str, Tensor]:
        """Of the pairs that count: the accuracy, and the share of what is left out where anything may be."""
        if self.held is not None:
            results = [_told(result, none) for result, none in zip(results, self.held == 0, strict=True)]
        found = [(f"{a}-{b}", r) for (a, b), r in zip(self.pairs, results, strict=True) if (a, b) in self.counted]
        accuracies = {f"accuracy/{pair}": result.accuracy for pair, result in found}
        return accuracies | {f"masked/{pair}": r.left_out for pair, r in found if r.left_out is not None}


def held_pairs(names: Sequence[Names], features: Features, world: World) -> HeldPairs:
    """The embeddings of each pair of modalities, of the samples that have both: its loss is that of these alone.

    A collective where samples may lack any. Raises ValueError, on all ranks, if no pair counts.
    """
    masks = {pair: _both([features.present[name] for name in pair if name in features.present]) for pair in names}
    some = {pair: mask for pair, mask in masks.items() if mask is not None}
    if some and world.ahead:
        every = features.sample_ids.new_ones(())
        own = torch.stack([every if mask is None else mask.sum() for mask in masks.values()])
        pairs = {names: _pair(names, features, mask) for names, mask in masks.items()}
        return HeldPairs(pairs, list(names), world.all_reduce_sum(own))
    counts = world.all_reduce_sum(torch.stack([mask.sum() for mask in some.values()])).tolist() if some else []
    empty = {pair for pair, count in zip(some, counts, strict=True) if not count}
    if len(empty) == len(names):
        raise ValueError("no sample of this batch has two modalities: enlarge data.global_batch")
    pairs = {names: _pair(names, features, mask) for names, mask in masks.items()}
    return HeldPairs(pairs, [pair for pair in names if pair not in empty])


def _pair(names: Names, features: Features, mask: Tensor | None) -> Pair:
    """With the hard negatives of samples that have both modalities."""
    given = [(features.negatives.get(name), features.negatives_present.get(name)) for name in names]
    (queries, queries_there), (keys, keys_there) = (
        (rows, there if mask is None or there is None else there & mask[:, None]) for rows, there in given
    )
    a, b = names
    return Pair(
        features.embeds[a],
        features.embeds[b],
        query_valid=mask,
        key_valid=mask,
        key_negatives=keys,
        key_negatives_valid=keys_there,
        query_negatives=queries,
        query_negatives_valid=queries_there,
    )


def _told(result: PairLoss, none: Tensor) -> PairLoss:
    """``result``, whose accuracy is not a number where ``none`` counts."""
    return replace(result, accuracy=result.accuracy.masked_fill(none, torch.nan))


def _both(masks: Sequence[Tensor]) -> Tensor | None:
    """bool [b], None for all samples."""
    return torch.stack(list(masks)).all(dim=0) if masks else None

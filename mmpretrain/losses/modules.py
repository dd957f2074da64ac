"""The losses as modules for training loops of your own, under DDP, FSDP2, accelerate or DeepSpeed (docs/losses.md).

Every rank calls the module with its own rows; negatives come from all ranks. What it returns is this rank's share: the
mean over the ranks is the loss of the whole batch, and with gradients averaged over the ranks, as all of these tools
do, gradients are those of one process on the whole batch. A module averages the gradients of its own parameters
(temperature, bias) itself, so that they are right whether or not a tool wraps it. Shapes: b rows of this rank, d width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Pair, PairLoss
from mmpretrain.losses.temperature import Temperature


class PairwiseLoss(nn.Module, ABC):
    """The mean of a loss over all unordered pairs of modalities.

    temperature: the initial value, learned as exp(logit_scale) = 1 / temperature. max_scale: upper limit of 1 /
    temperature; call :meth:`clamp_` after every optimizer step to hold it. settings: where negatives come from, tiles,
    and the memory that may be used. group: the ranks, default all.
    """

    def __init__(
        self,
        temperature: float,
        max_scale: float,
        settings: ObjectiveConfig | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}: it must be a finite number above 0")
        self.temperature = Temperature(temperature, max_scale)
        self.settings = settings or ObjectiveConfig()
        self.group = group

    def forward(
        self,
        /,
        *embeddings: Tensor,
        sample_ids: Tensor | None = None,
        present: Sequence[Tensor | None] | None = None,
        negatives: Sequence[Tensor | None] | None = None,
        negatives_present: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """This rank's loss, a scalar, from ``embeddings`` of two or more modalities, [b, d] each, not normalized.

        sample_ids: int64 [b], equal for copies of one sample, which then are not each other's negatives. present: of
        each modality bool [b], which samples have it, or None for all; a pair's loss is that of samples with both, and
        the mean goes over the pairs that some sample has. negatives: of each modality [b, k, d], k hard negatives of
        each sample, which the other modalities' rows see as further keys, or None for none; negatives_present: of each
        modality bool [b, k], which of them there are, or None for all. All ranks must call it alike, with equal b.
        Raises ValueError, on all ranks, for what cannot be compared.
        """
        if len(embeddings) < 2:
            raise ValueError(f"embeddings of at least two modalities are compared, and {len(embeddings)} were given")
        given = {"present": present, "negatives": negatives, "negatives_present": negatives_present}
        masks, further, there = (_one_each(name, values, len(embeddings)) for name, values in given.items())
        world = World.current(embeddings[0].device, self.group)
        both = [_both(m, n) for m, n in combinations(masks, 2)]
        sides = list(zip(embeddings, further, there, strict=True))
        pairs = [_pair(a, b, mask) for (a, b), mask in zip(combinations(sides, 2), both, strict=True)]
        losses = torch.stack([result.loss for result in self._results(pairs, world, sample_ids)])
        return losses.mean() if present is None else losses.sum() / _counted(both, world)

    def clamp_(self) -> None:
        """Hold the temperature's scale at or below its limit; call it after every optimizer step."""
        self.temperature.clamp_()

    def _scale(self, world: World) -> Tensor:
        return world.average_gradient(self.temperature.logit_scale).exp()

    @abstractmethod
    def _results(self, pairs: Sequence[Pair], world: World, sample_ids: Tensor | None) -> list[PairLoss]:
        """The loss of every pair."""


class InfoNCE(PairwiseLoss):
    """CLIP's loss: symmetric InfoNCE with a learned temperature (arXiv 2103.00020; formula: losses/contrastive.py).

    false_negative_margin: what is nearer to a row than its own pair by more than this much of cosine is left out of its
    negatives (Qwen3-Embedding: 0.1); None: as ``settings`` say, by default nothing is.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        max_scale: float = 100.0,
        settings: ObjectiveConfig | None = None,
        group: dist.ProcessGroup | None = None,
        false_negative_margin: float | None = None,
    ) -> None:
        if false_negative_margin is not None:
            settings = replace(settings or ObjectiveConfig(), false_negative_margin=false_negative_margin)
        if settings is not None and (problems := settings.problems()):
            raise ValueError("; ".join(problems))
        super().__init__(temperature, max_scale, settings, group)

    def _results(self, pairs: Sequence[Pair], world: World, sample_ids: Tensor | None) -> list[PairLoss]:
        return contrastive(
            pairs,
            scale=self._scale(world),
            world=world,
            settings=self.settings,
            sample_ids=sample_ids,
            metrics=False,
        )


class SigmoidLoss(PairwiseLoss):
    """SigLIP's loss (arXiv 2303.15343): every pair of samples judged alone, temperature and ``bias`` learned."""

    def __init__(
        self,
        temperature: float = 0.1,
        bias: float = -10.0,
        max_scale: float = math.inf,
        settings: ObjectiveConfig | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(temperature, max_scale, settings, group)
        self.bias = nn.Parameter(torch.tensor([bias]))

    def _results(self, pairs: Sequence[Pair], world: World, sample_ids: Tensor | None) -> list[PairLoss]:
        return sigmoid_contrastive(
            pairs,
            scale=self._scale(world),
            bias=world.average_gradient(self.bias),
            world=world,
            settings=self.settings,
            sample_ids=sample_ids,
            metrics=False,
        )


Side = tuple[Tensor, Tensor | None, Tensor | None]  # embeddings, hard negatives, which of these there are


def _one_each(name: str, values: Sequence[Tensor | None] | None, count: int) -> list[Tensor | None]:
    """Of every modality, None where nothing is given. Raises ValueError for another number of them."""
    found: list[Tensor | None] = [None] * count if values is None else list(values)
    if len(found) != count:
        masks = "tensors" if name == "negatives" else "masks"
        raise ValueError(f"{name} has {len(found)} {masks} for {count} modalities: give one each, or None")
    return found


def _pair(first: Side, second: Side, mask: Tensor | None) -> Pair:
    """mask: bool [b], the samples that have both; the hard negatives of the others do not count either."""
    (a, queries, queries_there), (b, keys, keys_there) = first, second
    return Pair(
        a,
        b,
        query_valid=mask,
        key_valid=mask,
        key_negatives=keys,
        key_negatives_valid=_of_complete(keys, keys_there, mask),
        query_negatives=queries,
        query_negatives_valid=_of_complete(queries, queries_there, mask),
    )


def _of_complete(negatives: Tensor | None, there: Tensor | None, mask: Tensor | None) -> Tensor | None:
    if negatives is None or mask is None:
        return there
    every = torch.ones(negatives.shape[:2], dtype=torch.bool, device=negatives.device) if there is None else there
    return every & mask[:, None]


def _both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """bool [b]: the samples that have both modalities; None for all."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _counted(both: Sequence[Tensor | None], world: World) -> int:
    """How many pairs of modalities some sample of the whole batch has. Raises ValueError if there are none."""
    some = [mask for mask in both if mask is not None]
    counts = world.all_reduce_sum(torch.stack([mask.sum() for mask in some])) if some else torch.ones(0)
    found = len(both) - int((counts == 0).sum())
    if not found:
        raise ValueError("no sample of this batch has two modalities: take larger batches")
    return found

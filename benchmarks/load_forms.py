"""Objectives shaped like CoMM's and FactorCL's on a rank's random features: ours, and dense.

Shape legend: b rows of a rank, W ranks, B = W b rows of the whole batch. Both forms see the same negatives, all
ranks' rows; the dense one writes out its own rows' matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Step
from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.critic_networks import PairwiseCritic
from mmpretrain.losses.critics import CriticTerm, Estimator, critic_losses

COMM_WIDTH, COMM_SCALE, MODALITIES = 256, 10.0, 2
HIDDEN = FEATURES = 512

# FactorCL's six terms: estimator, and how many feature vectors each side joins (2: the condition is appended).
TERMS = [
    (Estimator.nce, 1),
    (Estimator.club, 2),
    (Estimator.nce, 1),
    (Estimator.nce, 1),
    (Estimator.club, 1),
    (Estimator.nce, 2),
]


class OneOfMany(World):
    """A rank whose ``size - 1`` others are made up: they hold copies of its rows."""

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """[b, ...] -> [size b, ...]; the gradients of all copies add up, as those of a gather would."""
        return rows.repeat(self.size, *[1] * (rows.dim() - 1))


def comm_views(rows: int) -> list[Tensor]:
    """Projections [b, 256] of two views with each modality alone, and with all: 2 (n + 1), the full ones last."""
    generator = torch.Generator().manual_seed(World.current().rank)
    samples = torch.randn(rows, COMM_WIDTH, generator=generator)
    noise = torch.randn(2 * (MODALITIES + 1), rows, COMM_WIDTH, generator=generator)
    return [(samples + each).requires_grad_() for each in noise]


def comm_pairs(views: list[Tensor]) -> list[tuple[Tensor, Tensor, float]]:
    """2 n + 1 pairs and their weights: each modality against the other view's whole, and the wholes."""
    *partial, first, second = views
    halves = [(partial[i], second if i % 2 == 0 else first, 0.5) for i in range(len(partial))]
    return [(query, key, weight / (MODALITIES + 1)) for query, key, weight in [*halves, (first, second, 1.0)]]


def comm_ours(rows: int, settings: ObjectiveConfig) -> Step:
    """NT-Xent of all pairs in one call."""
    views = comm_views(rows)

    def step() -> float:
        weighted = comm_pairs(views)
        pairs = [Pair(query, key, same_side=True) for query, key, _ in weighted]
        losses = contrastive(pairs, scale=COMM_SCALE, world=World.current(), settings=settings, metrics=False)
        return _backward([w * outcome.loss for (*_, w), outcome in zip(weighted, losses, strict=True)], views)

    return step


def comm_dense(rows: int) -> Step:
    """One matrix of logits [2 b, 2 B] per pair."""
    views = comm_views(rows)

    def step() -> float:
        world = World.current()
        own = {id(view): F.normalize(view) for view in views}
        everyone = {name: world.all_gather_rows(unit) for name, unit in own.items()}
        targets = torch.arange(rows) + world.rank * rows
        losses = []
        for query, key, weight in comm_pairs(views):
            blocks = []
            for anchor, other in ((query, key), (key, query)):
                across = own[id(anchor)] @ everyone[id(other)].T
                same = own[id(anchor)] @ everyone[id(anchor)].T
                same.diagonal(world.rank * rows).fill_(-torch.inf)
                blocks.append(torch.cat([across, same], dim=1))
            logits = COMM_SCALE * torch.cat(blocks)
            losses.append(weight * F.cross_entropy(logits, targets.repeat(2)))
        return _backward(losses, views)

    return step


def comm_dense_bytes(batch: int) -> float:
    """Predicted, all ranks together: 2 n + 1 matrices of probabilities and five more in work, 4 (2 B)^2 bytes each."""
    return (2 * MODALITIES + 1 + 5) * 4 * (2 * batch) ** 2


@dataclass
class CriticLoad:
    """Six critics and what each compares, [b, 512] or [b, 1024] per side."""

    critics: list[PairwiseCritic]
    sides: list[tuple[Tensor, Tensor]]

    @classmethod
    def make(cls, rows: int) -> CriticLoad:
        """The same critics on all ranks; those of CLUB are not trained here, as in FactorCL's first step."""
        torch.manual_seed(0)
        critics = [PairwiseCritic(count * FEATURES, count * FEATURES, HIDDEN) for _, count in TERMS]
        for critic, (estimator, _) in zip(critics, TERMS, strict=True):
            critic.requires_grad_(estimator is Estimator.nce)
        torch.manual_seed(1 + World.current().rank)
        sides = []
        for _, count in TERMS:
            first = torch.randn(rows, count * FEATURES)
            sides.append((first.requires_grad_(), (first + torch.randn_like(first)).detach().requires_grad_()))
        return cls(critics, sides)

    def leaves(self) -> list[Tensor]:
        """Everything that gets a gradient."""
        parameters = [parameter for critic in self.critics for parameter in critic.parameters()]
        return [side for pair in self.sides for side in pair] + [p for p in parameters if p.requires_grad]


def critics_ours(rows: int, world_size: int | None = None) -> Step:
    """All six terms in one call. world_size: of a made-up group; None: of the one there is."""
    load = CriticLoad.make(rows)
    world = World.current() if world_size is None else OneOfMany(0, world_size)

    def step() -> float:
        terms = [
            CriticTerm(critic, a, b, estimator)
            for critic, (a, b), (estimator, _) in zip(load.critics, load.sides, TERMS, strict=True)
        ]
        return _backward(critic_losses(terms, world=world), load.leaves())

    return step


def critics_dense(rows: int) -> Step:
    """Each critic's plain MLP on all concatenated pairs of own anchors and all candidates at once."""
    load = CriticLoad.make(rows)

    def step() -> float:
        world = World.current()
        losses = []
        for critic, (a, b), (estimator, _) in zip(load.critics, load.sides, TERMS, strict=True):
            candidates = world.all_gather_rows(a)
            pairs = torch.cat([candidates.repeat(rows, 1), b.repeat_interleave(len(candidates), dim=0)], dim=1)
            scores = critic.network(pairs).view(rows, -1)
            own = scores.diagonal(world.rank * rows)
            if estimator is Estimator.nce:
                losses.append(-(own - scores.logsumexp(dim=1) + torch.tensor(len(candidates)).log()).mean())
            else:
                losses.append(own.mean() - scores.mean())
        return _backward(losses, load.leaves())

    return step


def critics_dense_bytes(batch: int) -> float:
    """Predicted, all ranks together: per pair, two layers of units of each critic, its input where it is trained, and
    one input in work.
    """
    inputs = [(estimator, 2 * count * FEATURES) for estimator, count in TERMS]
    saved = sum(2 * HIDDEN + (width if estimator is Estimator.nce else 0) for estimator, width in inputs)
    return 4 * batch**2 * (saved + max(width for _, width in inputs))


def _backward(losses: Sequence[Tensor], leaves: Sequence[Tensor]) -> float:
    for leaf in leaves:
        leaf.grad = None
    loss = torch.stack(list(losses)).sum()
    loss.backward()
    return loss.item()

"""Random batches of all kinds of targets, with masks and copies: what must and what must not change a loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, Soft, contrastive
from mmpretrain.losses.targets import Targets
from tests.losses import oracle
from tests.losses.cases import SAME_SIDE, Kind
from tests.rank_pool import Ranks

KINDS = (Kind.diagonal, Kind.nt_xent, Kind.mixup, Kind.soft_own_scale, Kind.labels, Kind.sup_con)
SCALE = 7.0

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
)
drawn = given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 6), st.sampled_from(KINDS), st.integers(1, 10))


@dataclass(frozen=True)
class Sample:
    """A whole batch of N rows. valid: of query and key. labels serve as what the kind asks for."""

    kind: Kind
    query: Tensor
    key: Tensor
    reference: Tensor
    valid: tuple[Tensor, Tensor]
    ids: Tensor
    labels: Tensor
    own: Tensor
    other: Tensor
    partner: Tensor

    @classmethod
    def draw(cls, seed: int, size: int, width: int, kind: Kind) -> Sample:
        """Every other batch has masks."""
        g = torch.Generator().manual_seed(seed)
        query, key, reference = torch.randn(3, size, width, dtype=torch.float64, generator=g)
        lam = torch.rand(size, generator=g, dtype=torch.float64)
        lam = lam.where(torch.rand(size, generator=g) < 0.5, torch.ones(()).double())
        masks = torch.rand(2, size, generator=g) < (0.7 if seed % 2 else 1.1)
        labels, ids = (torch.randint(0, size, (size,), generator=g) for _ in range(2))
        partner = torch.randperm(size, generator=g)
        return cls(kind, query, key, reference, (masks[0], masks[1]), ids, labels, lam, 1 - lam, partner)

    def permuted(self, order: Tensor) -> Sample:
        """The same sample with its rows in another order."""
        names = ("query", "key", "reference", "ids", "labels", "own", "other")
        moved = {name: getattr(self, name)[order] for name in names}
        valid = (self.valid[0][order], self.valid[1][order])
        return replace(self, **moved, valid=valid, partner=order.argsort()[self.partner[order]])

    def pair(self, rows: slice) -> Pair:
        """This kind's pair of some rows."""
        targets: dict[Kind, Targets] = {
            Kind.mixup: Mixup(self.own[rows], self.other[rows], self.partner[rows]),
            Kind.soft_own_scale: Soft(self.reference[rows], scale=5.0),
            Kind.labels: Labels(self.labels[rows]),
            Kind.sup_con: Labels(self.labels[rows]),
        }
        valid = (self.valid[0][rows], self.valid[1][rows])
        wanted = targets.get(self.kind, Diagonal())
        return Pair(self.query[rows], self.key[rows], wanted, self.kind in SAME_SIDE, *valid)

    def dense(self) -> oracle.Outcome:
        """What the dense formulas give."""
        belonging: dict[Kind, oracle.Belonging] = {
            Kind.mixup: oracle.Partners(self.own, self.other, self.partner),
            Kind.soft_own_scale: oracle.Likeness(self.reference, 5.0),
            Kind.labels: oracle.Classes(self.labels),
            Kind.sup_con: oracle.Classes(self.labels),
        }
        return oracle.contrast(
            self.query,
            self.key,
            SCALE,
            belonging.get(self.kind),
            ids=self.ids,
            query_valid=self.valid[0],
            key_valid=self.valid[1],
            same_side=self.kind in SAME_SIDE,
        )


def values(sample: Sample, tile: int = 3) -> list[float]:
    """Loss, accuracy, mean rank: means over the ranks."""
    world = World.current()
    size = len(sample.query) // world.size
    rows = slice(world.rank * size, (world.rank + 1) * size)
    config = ObjectiveConfig(Negatives.ring, tile=tile, keep_mb=tile % 2)
    pair = sample.pair(rows)
    (result,) = contrastive([pair], scale=SCALE, world=world, settings=config, sample_ids=sample.ids[rows])
    total = world.all_reduce_sum(torch.stack([result.loss, result.accuracy, result.mean_rank]).detach())
    return (total / world.size).tolist()


def close(found: list[float], expected: list[float]) -> None:
    """They agree up to rounding in float64."""
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-12)


@QUICK
@drawn
def test_dense_formula(seed: int, size: int, width: int, kind: Kind, tile: int) -> None:
    sample = Sample.draw(seed, size, width, kind)
    dense = sample.dense()
    assert values(sample, tile)[0] == pytest.approx(dense.loss.item(), rel=1e-11, abs=1e-12)


@QUICK
@drawn
def test_the_order_of_samples_does_not_matter(seed: int, size: int, width: int, kind: Kind, tile: int) -> None:
    sample = Sample.draw(seed, size, width, kind)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed + 1))
    # In one dimension cosines are +-1: rounding would decide which of equal ones is nearer.
    metrics = slice(None) if width > 1 else slice(0, 1)
    close(values(sample.permuted(order), tile)[metrics], values(sample)[metrics])


@QUICK
@drawn
def test_lengths_do_not_matter_but_places_do(seed: int, size: int, width: int, kind: Kind, tile: int) -> None:
    sample = Sample.draw(seed, size, width, kind)
    factors = torch.rand(3, size, 1, dtype=torch.float64) + 0.1
    sides = {"query": sample.query, "key": sample.key, "reference": sample.reference}
    longer = {name: rows * factor for (name, rows), factor in zip(sides.items(), factors, strict=True)}
    metrics = slice(None) if width > 1 else slice(0, 1)
    close(values(replace(sample, **longer), tile)[metrics], values(sample)[metrics])
    counted = int((sample.valid[0] & sample.valid[1]).sum())
    if width > 1 and counted > 2 and kind is Kind.diagonal and sample.ids.unique().numel() > 2:
        moved = replace(sample, query=sample.query + 3, key=sample.key - 2)
        assert values(moved, tile)[0] != pytest.approx(values(sample)[0], rel=1e-6)


@settings(QUICK, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 4), st.sampled_from(KINDS), st.integers(1, 10))
def test_ranks_do_not_matter(ranks: Ranks, seed: int, local: int, width: int, kind: Kind, tile: int) -> None:
    sample = Sample.draw(seed, 2 * local, width, kind)
    for found in ranks(2, values, sample, tile):
        close(found, values(sample))


@QUICK
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 4), st.sampled_from(KINDS))
def test_gradients_leave_lengths_alone(seed: int, size: int, width: int, kind: Kind) -> None:
    """The loss does not change along an embedding itself; and what is masked gets exactly nothing."""
    sample = Sample.draw(seed, size, width, kind)
    leaves = {name: getattr(sample, name).clone().requires_grad_() for name in ("query", "key", "reference")}
    sample = replace(sample, **leaves)
    (result,) = contrastive([sample.pair(slice(None))], scale=SCALE, world=World.single(), sample_ids=sample.ids)
    result.loss.backward()
    for rows in leaves.values():
        if rows.grad is not None:
            torch.testing.assert_close((rows * rows.grad).sum(dim=1), torch.zeros(size).double(), rtol=0, atol=1e-12)
    for name, valid in zip(("query", "key"), sample.valid, strict=True):
        grad = leaves[name].grad
        assert grad is not None and (grad[~valid] == 0).all()


def descend(sample: Sample, steps: int) -> list[float]:
    """Losses of a few steps of gradient descent on two shared offsets."""
    world = World.current()
    size = len(sample.query) // world.size
    rows = slice(world.rank * size, (world.rank + 1) * size)
    shift = torch.nn.Parameter(torch.zeros(sample.query.shape[1], dtype=torch.float64))
    losses: list[float] = []
    for _ in range(steps):
        shift.grad = None
        pair = sample.pair(rows)
        pair = replace(pair, query=pair.query + shift, key=pair.key * (1 + shift))
        (result,) = contrastive([pair], scale=SCALE, world=world, sample_ids=sample.ids[rows])
        result.loss.backward()
        average_gradients([shift], world)
        assert shift.grad is not None
        with torch.no_grad():
            shift -= 0.1 * shift.grad
        losses.append(world.all_reduce_sum(result.loss.detach()).item() / world.size)
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_on_two_ranks(ranks: Ranks, kind: Kind) -> None:
    sample = Sample.draw(2, 8, 3, kind)
    alone = descend(sample, 8)
    assert alone[-1] < alone[0]
    for found in ranks(2, descend, sample, 8):
        close(found, alone)

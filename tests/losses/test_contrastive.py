"""InfoNCE as a function: copies by hand, several pairs, gradients asked for in every way, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, Soft, contrastive
from tests.losses import oracle
from tests.losses.run_cases import one
from tests.losses.test_known_values import LAM, PARTNER, mixup, seeded
from tests.rank_pool import Ranks


def ones() -> tuple[Tensor, Tensor]:
    """Two sides [4, 3] that nothing is wrong with."""
    return torch.ones(4, 3), torch.ones(4, 3)


SETTINGS = pytest.mark.parametrize("config", [ObjectiveConfig(tile=3, keep_mb=0), ObjectiveConfig()])


def test_a_copy_of_a_sample_is_no_negative_of_it() -> None:
    a, c = seeded()
    a[7], c[7] = a[2], c[2]
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 6, 2])
    logits = 10 * oracle.unit(a) @ oracle.unit(c).T

    def row(i: int, seen: list[int]) -> Tensor:
        halves = logits[i, seen].log_softmax(0) + logits[seen, i].log_softmax(0)
        return -halves[seen.index(i)] / 2

    everyone = list(range(8))
    seen = [[j for j in everyone if j == i or ids[j] != ids[i]] for i in everyone]
    expected = sum(row(i, seen[i]).item() for i in everyone) / 8
    masked, plain = one(a, c, ids=ids), one(a, c, ids=torch.arange(8))
    assert masked.loss.item() == pytest.approx(expected)
    assert masked.loss < plain.loss and masked.accuracy >= plain.accuracy
    assert one(a, c, Labels(ids), ids=ids).loss == one(a, c, Labels(ids)).loss


def test_a_copy_is_no_negative_on_its_own_side_either() -> None:
    a, c = seeded()
    twice = torch.tensor([0, 0, 1])
    a, c = a[twice], c[twice]
    logits = 10 * oracle.unit(torch.cat([a, c])) @ oracle.unit(torch.cat([a, c])).T
    # Query 0 sees keys 0 and 2 and query 2; query 2 sees everything but itself.
    terms = [(0, 3, [3, 5, 2]), (1, 4, [4, 5, 2]), (2, 5, [3, 4, 5, 0, 1])]
    terms += [(3, 0, [0, 2, 5]), (4, 1, [1, 2, 5]), (5, 2, [0, 1, 2, 3, 4])]
    expected = sum((logits[i, seen].logsumexp(0) - logits[i, j]).item() for i, j, seen in terms) / 6
    assert one(a, c, ids=twice, same_side=True).loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(("lam", "hidden"), [(0.4, [(1, 6), (6, 1), (0, 6)]), (1.0, [(1, 6), (6, 1)])])
def test_copies_of_the_partner_are_hidden_where_it_was_mixed_in(lam: float, hidden: list[tuple[int, int]]) -> None:
    a, c = seeded()
    partner = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 1, 7])  # row 6 is a copy of row 0's partner
    lams = torch.tensor([lam, 1, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    logits = (10 * oracle.unit(a) @ oracle.unit(c).T).index_put(
        tuple(torch.tensor(hidden).T), torch.tensor(-math.inf).double()
    )
    expected = 0.0
    for side, own, other in ((logits, (0, 0), (0, 1)), (logits.T, (0, 0), (1, 0))):
        log_softmax = side.log_softmax(dim=1)
        expected -= log_softmax.diagonal()[1:].sum().item()
        expected -= lam * log_softmax[own].item() + (1 - lam) * log_softmax[other].item()
    assert one(a, c, mixup(lams, partner), ids=ids).loss.item() == pytest.approx(expected / 16)


def test_a_copy_takes_no_part_in_the_soft_targets_of_its_twin() -> None:
    a, b = (rows[:2] for rows in seeded())
    twice = torch.tensor([0, 0, 1])
    resemblance, logits = 8 * oracle.unit(b) @ oracle.unit(b).T, 8 * oracle.unit(a) @ oracle.unit(b).T

    def row(i: int, seen: list[int]) -> Tensor:
        halves = logits[i, seen].log_softmax(0) + logits.T[i, seen].log_softmax(0)
        return -(resemblance[i, seen].softmax(0) * halves).sum() / 2

    # Each twin sees a batch of two, as if the other were not there; the third row sees three.
    expected = (2 * row(0, [0, 1]) + row(1, [0, 0, 1])) / 3
    found = one(a[twice], b[twice], Soft(b[twice]), scale=8.0, ids=twice)
    assert found.loss.item() == pytest.approx(expected.item())


def test_temperature_gets_its_gradient_and_inputs_stay() -> None:
    a, c = seeded()
    inputs = (a, c, LAM.clone(), 1 - LAM, PARTNER.clone())
    before = [tensor.clone() for tensor in inputs]
    scale = torch.tensor([3.0], requires_grad=True)

    def loss(s: Tensor | float) -> Tensor:
        return one(a, c, Mixup(*inputs[2:]), scale=s).loss

    loss(scale).backward()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx((loss(3.001) - loss(2.999)).item() / 0.002, rel=1e-4)
    assert all(torch.equal(x, y) for x, y in zip(before, inputs, strict=True))


def test_several_pairs_at_once_equal_single_calls() -> None:
    a, c = seeded()
    pairs = [Pair(a, c), Pair(c, a, mixup(LAM, PARTNER)), Pair(a, a.flip(1), same_side=True), Pair(a, c, Soft(a))]
    together = contrastive(pairs, scale=5.0, world=World.single())
    for pair, result in zip(pairs, together, strict=True):
        alone = one(pair.query, pair.key, pair.targets, scale=5.0, same_side=pair.same_side)
        assert result.loss.item() == pytest.approx(alone.loss.item(), rel=1e-14)
        assert (result.accuracy, result.mean_rank) == (alone.accuracy, alone.mean_rank)


def every_kind(query: Tensor, key: Tensor) -> list[Pair]:
    """A pair with each kind of targets, and on the same side."""
    return [
        Pair(query, key),
        Pair(query, key, same_side=True),
        Pair(query, key, Labels(torch.arange(8) % 3), same_side=True),
        Pair(query, key, mixup(LAM, PARTNER)),
        Pair(query, key, Soft(key)),
    ]


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    """Two sides and a scale that ask for gradients."""
    query, key = (rows.requires_grad_() for rows in seeded())
    return query, key, torch.tensor([6.0], dtype=torch.float64, requires_grad=True)


@SETTINGS
def test_gradients_can_be_taken_twice_and_of_one_loss_alone(config: ObjectiveConfig) -> None:
    query, key, scale = leaves()
    results = contrastive(every_kind(query, key), scale=scale, world=World.single(), settings=config)
    total = torch.stack([result.loss for result in results]).sum()
    first, again = (torch.autograd.grad(total, (query, key, scale), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    parts = [torch.autograd.grad(r.loss, (query, key, scale), retain_graph=True) for r in results]
    for whole, *each in zip(first, *parts, strict=True):
        torch.testing.assert_close(torch.stack(each).sum(dim=0), whole, rtol=1e-12, atol=1e-14)


@SETTINGS
def test_gradients_by_finite_differences(config: ObjectiveConfig) -> None:
    def losses(query: Tensor, key: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        pairs = every_kind(query, key)
        return tuple(r.loss for r in contrastive(pairs, scale=scale, world=World.single(), settings=config))

    assert torch.autograd.gradcheck(losses, leaves(), atol=1e-7, fast_mode=True)


@SETTINGS
def test_strides_do_not_matter_and_without_gradients_the_values_stay(config: ObjectiveConfig) -> None:
    query, key, scale = leaves()
    plain = contrastive(every_kind(query, key), scale=scale, world=World.single(), settings=config)
    strange = [rows.detach().T.contiguous().T for rows in (query, key)]
    with torch.no_grad():
        silent = contrastive(every_kind(query, key), scale=scale, world=World.single(), settings=config)
    turned = contrastive(every_kind(*strange), scale=6.0, world=World.single(), settings=config)
    for a, b, c in zip(plain, silent, turned, strict=True):
        assert a.loss.requires_grad and not b.loss.requires_grad and not c.loss.requires_grad
        assert not a.accuracy.requires_grad and not a.mean_rank.requires_grad
        assert a.loss == b.loss and c.loss.item() == pytest.approx(a.loss.item(), rel=1e-13)
        assert all(value.dim() == 0 for value in (a.loss, a.accuracy, a.mean_rank))


def test_without_metrics_the_loss_is_the_same() -> None:
    a, c = seeded()
    (plain,) = contrastive([Pair(a, c)], scale=5.0, world=World.single())
    (bare,) = contrastive([Pair(a, c)], scale=5.0, world=World.single(), metrics=False)
    assert bare.loss == plain.loss and bare.accuracy.isnan() and bare.mean_rank.isnan()


def test_the_same_side_in_a_pair_gets_both_gradients() -> None:
    a, _ = seeded()
    once, left, right = a.clone().requires_grad_(), a.clone().requires_grad_(), a.clone().requires_grad_()
    one(once * 1.0, once * 1.0, Labels(torch.arange(8) % 2)).loss.backward()
    one(left, right, Labels(torch.arange(8) % 2)).loss.backward()
    same = a.clone().requires_grad_()
    one(same, same, Labels(torch.arange(8) % 2)).loss.backward()
    assert once.grad is not None and left.grad is not None and right.grad is not None and same.grad is not None
    torch.testing.assert_close(once.grad, left.grad + right.grad)
    torch.testing.assert_close(same.grad, once.grad)


@pytest.mark.parametrize(
    ("pair", "scale", "message"),
    [
        (Pair(torch.ones(4, 3), torch.ones(4, 5)), 1.0, r"\[4, 3\] and \[4, 5\].*model.embed_dim"),
        (Pair(torch.ones(4, 3), torch.ones(3, 3)), 1.0, r"\[4, 3\] and \[3, 3\]"),
        (Pair(torch.ones(4), torch.ones(4)), 1.0, r"\[4\] and \[4\]"),
        (Pair(*ones(), mixup(LAM[:4], PARTNER[:4] % 4), same_side=True), 1.0, "Diagonal or Labels"),
        (Pair(*ones(), Soft(torch.ones(4, 3)), same_side=True), 1.0, "Diagonal or Labels"),
        (Pair(*ones(), Soft(torch.ones(5, 3))), 1.0, "5 rows for 4 samples"),
        (Pair(*ones()), 0.0, r"scale .* is 0.*must lie in"),
        (Pair(*ones()), -3.0, r"scale .* is -3.*must lie in"),
        (Pair(*ones()), torch.tensor([1e4]), r"scale .* is 10000.*must lie in"),
        (Pair(*ones()), math.nan, r"scale .* is nan.*must lie in"),
        (Pair(*ones()), torch.tensor([2.0, 1.0, 0.0, 1.0]), r"scale .*must lie in"),
        (Pair(*ones()), torch.tensor([2.0, 1.0, 3.0]), "scale"),
        (Pair(*ones(), same_side=True), torch.ones(4, 1), "scale per query row"),
        (Pair(*ones(), Soft(torch.ones(4, 3))), torch.ones(4, 1), "scale per query row"),
    ],
)
def test_what_cannot_be_is_refused(pair: Pair, scale: Tensor | float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive([pair], scale=scale, world=World.single())


def extreme(config: ObjectiveConfig, scale: float) -> tuple[float, Tensor]:
    """In float32: all of rank 1's pairs are opposite, those of the others are near. Mean loss; own gradients."""
    world = World.current()
    generator = torch.Generator().manual_seed(5)
    query, noise = torch.randn(2, 24, 16, generator=generator)
    query[:, 0] += 8
    key = query + 0.1 * noise
    query[6:12] *= -1
    rows = slice(world.rank * 24 // world.size, (world.rank + 1) * 24 // world.size)
    own = query[rows].clone().requires_grad_()
    pairs = [Pair(own, key[rows], targets) for targets in (Diagonal(), Soft(key[rows], scale=20.0))]
    results = contrastive(pairs, scale=scale, world=world, settings=config)
    total = torch.stack([result.loss for result in results]).sum()
    total.backward()
    assert own.grad is not None
    return world.all_reduce_sum(total.detach()).item() / world.size, own.grad / world.size


@pytest.mark.parametrize("scale", [30.0, 100.0, 600.0])
@pytest.mark.parametrize("mode", [Negatives.gather, Negatives.ring])
def test_one_rank_with_extreme_numbers(ranks: Ranks, scale: float, mode: Negatives) -> None:
    config = ObjectiveConfig(mode, tile=5, keep_mb=0)
    loss, gradient = extreme(config, scale)
    results = ranks(4, extreme, config, scale)
    assert all(value == pytest.approx(loss, rel=1e-5) for value, _ in results)
    together = torch.cat([rows for _, rows in results])
    assert (together - gradient).abs().max() <= 1e-4 * gradient.abs().max()


@pytest.mark.parametrize(
    ("pair", "ids", "message"),
    [
        (Pair(*ones(), Labels(torch.zeros(9, dtype=torch.int64))), None, r"Labels\.ids of shape \[9\]"),
        (Pair(*ones(), mixup(LAM[:4], torch.arange(4) + 4)), None, r"Mixup\.partner must lie in 0\.\.3"),
        (Pair(*ones(), mixup(LAM[:4], torch.arange(5))), None, r"Mixup\.partner of shape \[5\]"),
        (Pair(*ones(), query_valid=torch.ones(3, dtype=torch.bool)), None, r"query_valid of shape \[3\]"),
        (Pair(*ones(), key_valid=torch.ones(4)), None, "key_valid is a tensor of torch.float32"),
        (Pair(*ones()), torch.arange(3), r"sample_ids of shape \[3\] for 4 samples"),
        (
            Pair(*ones(), Soft(torch.ones(4, 3), scale=torch.ones(4, 1))),
            None,
            "one scale, not one per row",
        ),
    ],
)
def test_what_does_not_fit_the_samples_is_refused(pair: Pair, ids: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrastive([pair], scale=2.0, world=World.single(), sample_ids=ids)


def test_a_call_needs_a_pair() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        contrastive([], scale=2.0, world=World.single())

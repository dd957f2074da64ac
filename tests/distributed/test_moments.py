"""Moments of all ranks' rows against torch.cov in one process, in float64, and the gradients that pass through them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mmpretrain.distributed.moments import Moments, PooledMoments, RunningMoments, moments
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from tests.rank_pool import RankError, Ranks

INPUT, HALF = 6, 2
SHARES = [[12], [6, 6], [9, 3], [12, 0], [2, 7, 3], [3, 3, 3, 3], [5, 0, 1, 6]]


def samples(rows: int, seed: int = 0) -> Tensor:
    """Normal rows around 3."""
    return torch.randn(rows, INPUT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3


def encoder() -> nn.Module:
    """A small network with the same weights at every call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUT, 8), nn.Tanh(), nn.Linear(8, 2 * HALF)).double()


def correlation(covariance: Tensor, ridge: float = 1e-3) -> Tensor:
    """The sum of squared canonical correlations of the two halves of the columns."""
    own = ridge * torch.eye(HALF, dtype=covariance.dtype)
    aa, bb, ab = covariance[:HALF, :HALF] + own, covariance[HALF:, HALF:] + own, covariance[:HALF, HALF:]
    return (torch.linalg.solve(aa, ab) @ torch.linalg.solve(bb, ab.T)).trace()


def loss_and_gradients(shares: list[int], weights: Tensor | None) -> tuple[float, list[Tensor]]:
    """A loss of the moments of all ranks' rows, and the averaged gradients of the encoder."""
    world, model = World.current(), encoder()
    own = None if weights is None else weights.split(shares)[world.rank]
    found = moments(model(samples(sum(shares)).split(shares)[world.rank]), world=world, weights=own)
    # The mean takes part as well: its gradient has a way of its own.
    loss = correlation(found.covariance) + found.mean.square().sum()
    loss.backward()
    average_gradients(model.parameters(), world)
    return loss.item(), [p.grad for p in model.parameters() if p.grad is not None]


def dense(weights: Tensor | None, rows: int = 12) -> tuple[float, list[Tensor]]:
    """One process, torch.cov, each row as often as its weight says."""
    model = encoder()
    z = model(samples(rows))
    z = z if weights is None else z.repeat_interleave(weights.long(), dim=0)
    loss = correlation(torch.cov(z.T)) + z.mean(0).square().sum()
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("weights", [None, "valid", "counts"])
@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_loss_and_gradients_are_those_of_one_process(ranks: Ranks, shares: list[int], weights: str | None) -> None:
    given = {"valid": torch.arange(12) % 3 > 0, "counts": torch.arange(12) % 4}
    weight = None if weights is None else given[weights]
    loss, gradients = dense(weight)
    for found, found_gradients in ranks(len(shares), loss_and_gradients, shares, weight):
        assert found == pytest.approx(loss, rel=1e-10)
        for ours, expected in zip(found_gradients, gradients, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)


def plain(shares: list[int], ddof: int) -> Moments:
    """Moments in float32 of rows that the ranks share like this."""
    world = World.current()
    return moments(samples(sum(shares)).split(shares)[world.rank].float(), world=world, ddof=ddof)


@pytest.mark.parametrize("ddof", [0, 1, 2])
@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_moments_of_float32_rows_are_summed_in_float64(ranks: Ranks, shares: list[int], ddof: int) -> None:
    rows = samples(12).float().double()
    for found in ranks(len(shares), plain, shares, ddof):
        assert found.count == 12 and found.covariance.dtype is torch.float64
        torch.testing.assert_close(found.mean, rows.mean(0), rtol=1e-13, atol=0)
        torch.testing.assert_close(found.covariance, torch.cov(rows.T, correction=ddof), rtol=1e-12, atol=1e-13)


def many(cases: list[tuple[list[int], list[int]]]) -> list[Tensor]:
    """Covariances for many orders of the rows and shares of the ranks."""
    world = World.current()
    return [
        moments(samples(len(order))[order].split(shares)[world.rank], world=world).covariance for order, shares in cases
    ]


def test_sharding_and_order_of_rows_do_not_matter(ranks: Ranks) -> None:
    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(st.permutations(range(9)), st.lists(st.integers(0, 9), min_size=3, max_size=3))
    def same(order: list[int], cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), 9]
        shares = [b - a for a, b in pairwise(edges)]
        for (found,) in ranks(4, many, [(order, shares)]):
            torch.testing.assert_close(found, torch.cov(samples(9).T), rtol=1e-12, atol=1e-13)

    same()


def far_away(offset: float) -> Tensor:
    """The covariance of small numbers around a large one."""
    world = World.current()
    rows = samples(64)[world.rank :: world.size] * 1e-3
    return moments(rows + offset, world=world).covariance


def test_large_mean_and_small_variance(ranks: Ranks) -> None:
    expected = torch.cov(samples(64).T * 1e-3)
    for found in ranks(2, far_away, 1e6):
        # The rows themselves hold 1e-3 at 1e6 to 7 digits; a sum of squares would leave none of the variance.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-11)


def test_rows_that_do_not_count_may_hold_anything() -> None:
    rows = samples(5).requires_grad_()
    broken = torch.cat([rows, torch.full((1, INPUT), torch.nan, dtype=torch.float64)])
    found = moments(broken, world=World.single(), weights=torch.arange(6) < 5)
    torch.testing.assert_close(found.covariance, torch.cov(rows.detach().T))
    found.covariance.square().sum().backward()
    assert rows.grad is not None and rows.grad.isfinite().all()


def test_too_few_rows_and_wrong_shapes(ranks: Ranks) -> None:
    with pytest.raises(RankError, match=r"rows of more than weight 1 in the whole batch, got 1"):
        ranks(2, plain, [1, 0], 1)
    for rows, weights in ((torch.zeros(3), None), (torch.zeros(3, 2), torch.ones(2))):
        with pytest.raises(ValueError, match=r"rows \[n, D\] and weights \[n\]"):
            moments(rows, world=World.single(), weights=weights)


def pooled(shares: list[int], weighted: bool) -> Moments:
    """Of this rank's share, added in batches of at most 4 rows."""
    world, found = World.current(), PooledMoments()
    rows, weights = (t.split(shares)[world.rank].split(4) for t in (samples(sum(shares)), torch.arange(12) % 4))
    for part, weight in zip(rows, weights, strict=True):
        found.add(part.float() if not weighted else part, weight if weighted else None)
    return found.moments(world)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_moments_of_many_batches_are_those_of_all_rows(ranks: Ranks, shares: list[int], weighted: bool) -> None:
    weights = torch.arange(12) % 4 if weighted else None
    rows = samples(12) if weighted else samples(12).float()
    expected = moments(rows, world=World.single(), weights=weights)
    for found in ranks(len(shares), pooled, shares, weighted):
        assert found.count == expected.count
        torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.covariance, expected.covariance, rtol=1e-11, atol=1e-13)


def test_pooled_moments_of_too_little_are_refused() -> None:
    found = PooledMoments()
    with pytest.raises(ValueError, match="moments of no rows"):
        found.moments(World.single())
    found.add(samples(3), torch.tensor([True, False, False]))
    with pytest.raises(ValueError, match="rows of more than weight 1 on all ranks, got 1"):
        found.moments(World.single())


def batches(count: int) -> list[Moments]:
    """Moments of ``count`` batches of 10 rows."""
    return [moments(samples(10, seed), world=World.single()) for seed in range(count)]


def test_running_moments_are_the_weighted_average_of_the_batches() -> None:
    running = RunningMoments(INPUT, momentum=0.8)
    given = batches(4)
    shares = torch.tensor([0.8**3, 0.8**2, 0.8, 1.0], dtype=torch.float64)
    shares /= shares.sum()
    first, *_, last = [running(batch) for batch in given]
    assert torch.equal(first.covariance, given[0].covariance) and torch.equal(first.mean, given[0].mean)
    for key in ("mean", "covariance"):
        expected = sum(share * getattr(batch, key) for share, batch in zip(shares, given, strict=True))
        torch.testing.assert_close(getattr(last, key), expected)
        torch.testing.assert_close(getattr(running, key), expected)
    assert running.steps == 4 and last.count == 10


def test_running_moments_pass_the_newest_batchs_gradient_and_survive_a_checkpoint() -> None:
    running = RunningMoments(INPUT, momentum=0.5)
    running(batches(1)[0])
    again = RunningMoments(INPUT, momentum=0.5)
    again.load_state_dict(running.state_dict())
    gradients = []
    for module in (running, again):
        rows = samples(10, 7).requires_grad_()
        for _ in range(2):  # the second backward must not reach the first one's graph
            rows.grad = None
            module(moments(rows, world=World.single())).covariance.trace().backward()
        assert rows.grad is not None
        gradients.append(rows.grad)
    assert torch.equal(*gradients) and again.steps == 3
    alone = samples(10, 7).requires_grad_()
    torch.cov(alone.T).trace().backward()
    assert alone.grad is not None
    torch.testing.assert_close(gradients[0], alone.grad * 0.5 / (1 - 0.5**3))


def test_running_moments_keep_nothing_in_evaluation_mode() -> None:
    running = RunningMoments(INPUT).eval()
    running(batches(1)[0])
    assert running.steps == 0 and not running.covariance.any()
    with pytest.raises(ValueError, match="momentum is 1"):
        RunningMoments(INPUT, momentum=1)

"""Losses of correlations: known values, invariances, and the same on any number of ranks.

Section 11 of MUCMM (reconstruction), checks 1, 2, 5 and 6."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.distributed.moments import moments
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.losses.correlation import (
    SMOOTHING,
    Blocks,
    agreement,
    correlations,
    redundancy,
    standardize,
    sum_of_correlations,
    sum_of_squares,
    unexplained,
    whiten,
)
from tests.rank_pool import Ranks

A, B, C = ("code", "a"), ("code", "b"), ("code", "c")


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal float64 numbers of this shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(count: int = 200) -> tuple[Tensor, Tensor]:
    """[n, 4] and [n, 3] that correlate."""
    first = normal(count, 4)
    return first, first[:, :3] + 0.7 * normal(count, 3, seed=1) + 0.3 * first[:, 1:]


def blocks(*sides: Tensor) -> Blocks:
    """The covariance of the sides, block by block."""
    widths = dict(zip((A, B, C), (side.shape[1] for side in sides), strict=False))
    return Blocks(torch.cov(torch.cat(sides, dim=1).T), widths)


def cross(first: Tensor, second: Tensor, ridge: float = 0.0) -> Tensor:
    """The whitened cross-covariance of two sides."""
    return whiten(blocks(first, second), ridge).of(A, B)


def test_correlations_lie_between_0_and_1_and_a_code_correlates_with_itself() -> None:
    first, second = related()
    rho = correlations(cross(first, second))
    assert (rho >= 0).all() and (rho <= 1 + 1e-6).all()
    itself = cross(first, first)
    torch.testing.assert_close(correlations(itself), torch.ones(4, dtype=torch.float64))
    assert sum_of_correlations(itself).item() == pytest.approx(4, abs=1e-6)


def test_independent_codes_correlate_by_chance_alone() -> None:
    found = sum_of_squares(cross(normal(1024, 10), normal(1024, 10, seed=1)))
    assert found.item() == pytest.approx(0.098, abs=0.05)  # k^2 / (N - 1)
    few = sum_of_correlations(cross(normal(32, 10), normal(32, 10, seed=1)))
    assert few.item() == pytest.approx(4.87, abs=0.6)  # the degeneracy of small batches


def test_linear_maps_and_shifts_change_no_correlation() -> None:
    first, second = related()
    left, _, right = torch.linalg.svd(normal(4, 4, seed=2))
    moved = first @ (left * torch.logspace(0, 2, 4, dtype=torch.float64)) @ right + 7
    torch.testing.assert_close(
        correlations(cross(moved, second)), correlations(cross(first, second)), rtol=0, atol=1e-8
    )


def test_the_trace_form_is_the_sum_of_squared_singular_values() -> None:
    first, second = related()
    s, ridge = torch.cov(torch.cat([first, second], dim=1).T), 0.01
    saa, sbb, sab = s[:4, :4], s[4:, 4:], s[:4, 4:]
    saa, sbb = (m + ridge * m.trace() / len(m) * torch.eye(len(m)).to(m) for m in (saa, sbb))
    trace = (torch.linalg.solve(saa, sab) @ torch.linalg.solve(sbb, sab.T)).trace()
    found = cross(first, second, ridge)
    assert sum_of_squares(found).item() == pytest.approx(trace.item(), abs=1e-10)
    assert sum_of_squares(found).item() == pytest.approx(torch.linalg.svdvals(found).square().sum().item(), abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_smooth_sum_is_close_to_the_nuclear_norm_and_has_a_gradient_at_0(seed: int) -> None:
    matrix = normal(4, 3, seed=seed) / 4
    nuclear = torch.linalg.matrix_norm(matrix, "nuc")
    assert 0 <= (sum_of_correlations(matrix) - nuclear).item() <= 3 * SMOOTHING**0.5
    zero = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    sum_of_correlations(zero).backward()
    assert zero.grad is not None and not zero.grad.any()
    equal = torch.eye(3, dtype=torch.float64).mul(0.5).requires_grad_()  # equal singular values
    assert torch.autograd.gradcheck(sum_of_correlations, equal)


def test_agreement_of_two_codes_is_that_of_canonical_correlations() -> None:
    first, second = related()
    white = whiten(blocks(first[:, :3], second), 0.0)
    rho = correlations(white.of(A, B))
    assert agreement(white, 2).item() == pytest.approx((1 + rho[:2]).mean().item() / 2)
    alike = whiten(blocks(first, first @ normal(4, 4), first), 0.0)
    assert agreement(alike, 4).item() == pytest.approx(1.0)


def test_redundancy_is_that_of_plain_correlations() -> None:
    first, second = related()
    standard = standardize(blocks(first[:, :3] * 9, second + 4)).of(A, B)
    expected = torch.corrcoef(torch.cat([first[:, :3], second], dim=1).T)[:3, 3:]
    torch.testing.assert_close(standard, expected)
    off = expected - expected.diagonal().diag()
    by_hand = ((1 - expected.diagonal()) ** 2).sum() + 0.005 * (off**2).sum()
    assert redundancy(standard).item() == pytest.approx(by_hand.item() / 3)
    assert redundancy(torch.eye(3)).item() == 0


def test_unexplained_variance_is_that_of_least_squares() -> None:
    first, second = related()
    found = unexplained(blocks(first, second), A, [B], ridge=0.0)
    x, y = second - second.mean(0), first - first.mean(0)
    left = y - x @ torch.linalg.lstsq(x, y).solution
    assert found.item() == pytest.approx((left.square().sum() / y.square().sum()).item(), rel=1e-10)
    three = blocks(first, second[:, :1], second[:, 1:])
    assert unexplained(three, A, [B, C], 0.0).item() == pytest.approx(found.item(), rel=1e-10)
    assert unexplained(blocks(first, first * 1e-6), A, [B], 0.0).item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_gives_no_number_and_no_error(broken: float) -> None:
    first, second = related()
    first[0, 0] = broken
    found = blocks(first, second)
    white = whiten(found, 1e-4)
    values = [sum_of_correlations(white.of(A, B)), sum_of_squares(white.of(A, B)), agreement(white, 2)]
    assert all(value.isnan() for value in [*values, *correlations(white.of(A, B)), unexplained(found, A, [B], 1e-4)])


def test_a_constant_code_correlates_with_nothing_when_standardized() -> None:
    first, second = related()
    standard = standardize(blocks(torch.zeros_like(first), second)).of(A, B)
    assert not standard.any()


SHARES = [[16], [9, 7], [5, 8, 3], [4, 4, 4, 4], [7, 0, 1, 8]]


def heads() -> nn.ModuleList:
    """Two linear heads with the same weights at every call."""
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(size, 3) for size in (4, 3)).double()


def codes(own: slice) -> list[Tensor]:
    """These rows of related sides."""
    return [side[own] for side in related(16)]


def total(found: Blocks) -> Tensor:
    """A sum in which every loss of this file takes part."""
    white = whiten(found, 1e-2)
    return sum_of_squares(white.of(A, B)) - sum_of_correlations(white.of(A, B)) + unexplained(found, A, [B], 1e-2)


def sharded(shares: list[int]) -> tuple[float, list[Tensor]]:
    """Loss and averaged gradients of this rank, which has so many of the rows."""
    world, maps = World.current(), heads()
    start = sum(shares[: world.rank])
    rows = [head(x) for head, x in zip(maps, codes(slice(start, start + shares[world.rank])), strict=True)]
    joint = moments(torch.cat(rows, dim=1), world=world)
    loss = total(Blocks(joint.covariance, {A: 3, B: 3}))
    loss.backward()
    average_gradients(maps.parameters(), world)
    return loss.item(), [p.grad for p in maps.parameters() if p.grad is not None]


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_how_samples_are_spread_over_ranks_does_not_matter(ranks: Ranks, shares: list[int]) -> None:
    maps = heads()
    loss = total(blocks(*(head(x) for head, x in zip(maps, codes(slice(None)), strict=True))))
    loss.backward()
    expected = [p.grad for p in maps.parameters() if p.grad is not None]
    for found, gradients in ranks(len(shares), sharded, shares):
        assert found == pytest.approx(loss.item(), abs=1e-10)
        for ours, right in zip(gradients, expected, strict=True):
            torch.testing.assert_close(ours, right, rtol=0, atol=1e-8)


def test_the_mean_of_the_ranks_own_covariances_is_something_else() -> None:
    maps = heads()
    rows = [head(x) for head, x in zip(maps, codes(slice(None)), strict=True)]
    joint = torch.cat(rows, dim=1)
    mean = torch.stack([torch.cov(part.T) for part in joint.split([9, 7])]).mean(dim=0)
    assert abs(total(Blocks(mean, {A: 3, B: 3})) - total(blocks(*rows))) > 1e-3

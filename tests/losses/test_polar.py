"""Sums of singular values and eigenvalues by products alone are those of LAPACK, with their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmpretrain.losses.correlation import SMOOTHING, Blocks, agreement, mean_correlation, sum_of_correlations
from mmpretrain.losses.polar import leading_sum, nuclear_norm


def with_values(values: list[float], rows: int) -> Tensor:
    """A matrix [rows, k] that has these singular values."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, len(values), dtype=torch.float64))[0] for n in (rows, len(values)))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


@pytest.mark.parametrize("values", [[0.9, 0.5, 0.2], [1.0, 1e-3, 1e-5, 0.0], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_the_sum_of_correlations_and_its_gradient_are_those_of_eigenvalues(values: list[float]) -> None:
    for rows in (len(values), 7):
        for cross in (with_values(values, rows), with_values(values, rows).T):
            given = [cross.clone().requires_grad_() for _ in range(2)]
            found, expected = sum_of_correlations(given[0], ahead=True), sum_of_correlations(given[1])
            (found + expected).backward()
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
            assert given[0].grad is not None
            torch.testing.assert_close(given[0].grad, given[1].grad, rtol=1e-8, atol=1e-8)
            near = mean_correlation(cross, ahead=True)
            torch.testing.assert_close(near, mean_correlation(cross), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("values", [[1.9, 1.4, 1.39, 0.6, 0.1], [2.0, 1.5, 1.5, 1.5, 0.2], [1.0, 0.5, -0.5, -3.0]])
def test_the_sum_of_the_largest_eigenvalues_is_right_with_gaps_and_without(values: list[float]) -> None:
    basis = with_values([1.0] * len(values), len(values))
    symmetric = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
    for count in range(1, len(values)):
        given = symmetric.clone().requires_grad_()
        found = leading_sum(given, count)
        assert found.item() == pytest.approx(sum(values[:count]), abs=1e-11)
        if values[count - 1] > values[count]:
            found.backward()
            torch.testing.assert_close(given.grad, basis[:, :count] @ basis[:, :count].T, rtol=0, atol=1e-9)


def test_the_agreement_of_codes_needs_no_decomposition_either() -> None:
    cross = with_values([0.8, 0.3, 0.1], 3)
    one = torch.eye(3, dtype=torch.float64)
    white = Blocks(
        torch.cat([torch.cat([one, cross], 1), torch.cat([cross.T, one], 1)]), {("c", "a"): 3, ("c", "b"): 3}
    )
    for width in (1, 3):
        torch.testing.assert_close(agreement(white, width, ahead=True), agreement(white, width), rtol=1e-11, atol=0)


def test_what_is_not_finite_gives_nan() -> None:
    broken = torch.full((3, 3), torch.nan, dtype=torch.float64)
    assert nuclear_norm(broken, SMOOTHING).isnan() and leading_sum(broken, 1).isnan()
    assert sum_of_correlations(broken, ahead=True).isnan() and mean_correlation(broken, ahead=True).isnan()

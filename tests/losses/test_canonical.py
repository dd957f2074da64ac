"""The closed form on a linear world whose parts are known; section 11 of MUCMM (reconstruction), checks 3 and 8."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmpretrain.distributed.moments import Moments, moments
from mmpretrain.distributed.world import World
from mmpretrain.losses.canonical import (
    Canonical,
    canonical,
    canonical_of_rows,
    common_dimension,
    permutation_null,
    principal_whitening,
    shared_directions,
)
from mmpretrain.losses.correlation import Blocks, whiten
from shards.linear import CORRELATIONS, WIDTHS, draw, population

K = len(CORRELATIONS)


def rows(count: int = 2000) -> tuple[Tensor, Tensor]:
    """Samples of the linear world, moved away from zero."""
    first, second = draw(count, seed=3)
    return torch.from_numpy(first) + 5, torch.from_numpy(second) - 2


def of_population() -> Canonical:
    """The canonical analysis of the world's own covariance."""
    covariance = torch.from_numpy(population())
    joint = Moments(torch.tensor(1.0), torch.zeros(sum(WIDTHS), dtype=torch.float64), covariance)
    return canonical(joint, WIDTHS[0], ridge=0.0)


def of_rows(sides: tuple[Tensor, Tensor], ridge: float = 0.0) -> Canonical:
    """The canonical analysis of samples."""
    return canonical_of_rows(sides[0], sides[1], ridge)


def codes(found: Canonical, maps: tuple[Tensor, Tensor], sides: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Centered samples times the maps."""
    return [(h - mean) @ m for h, mean, m in zip(sides, found.means, maps, strict=True)]


def close(found: Tensor, expected: Tensor | float, tolerance: float = 1e-10) -> None:
    """They agree within ``tolerance``."""
    assert (found - expected).abs().max() < tolerance


def test_the_world_has_the_correlations_that_it_was_made_with() -> None:
    rho = of_population().rho
    assert rho.tolist() == pytest.approx([0.899, 0.6, 0, 0, 0, 0], abs=5e-3)
    first, second = draw(50_000, seed=0)
    sampled = of_rows((torch.from_numpy(first), torch.from_numpy(second))).rho
    assert sampled[:K].tolist() == pytest.approx(rho[:K].tolist(), abs=1e-2)


@pytest.mark.parametrize("widths", [None, (3, 2)])
def test_individual_codes_are_correlated_with_no_common_one(widths: tuple[int, int] | None) -> None:
    found, sides = of_rows(rows()), rows()
    common, individual = codes(found, found.common(K), sides), codes(found, found.individual(K, widths), sides)
    joint = moments(torch.cat([*common, *individual], dim=1), world=World.single()).covariance
    close(joint[: 2 * K, 2 * K :], 0.0)
    sizes = [code.shape[1] for code in individual]
    assert sizes == ([6, 4] if widths is None else [3, 2])
    for block in (joint[:K, :K], joint[2 * K : 2 * K + sizes[0], 2 * K : 2 * K + sizes[0]]):
        close(block, torch.eye(len(block), dtype=torch.float64))
    close(joint[:K, K : 2 * K], found.rho[:K].diag())
    if widths is None:
        left = torch.zeros(6, 4, dtype=torch.float64)
        left.diagonal().copy_(found.rho[K:])
        close(joint[2 * K : 2 * K + 6, 2 * K + 6 :], left)


def test_narrow_individual_maps_are_the_leading_components_of_what_is_left() -> None:
    found = of_population()
    for side, width in enumerate((3, 2)):
        common, individual = found.common(K)[side], found.individual(K, (3, 2))[side]
        covariance = found.covariances[side]
        left = covariance - covariance @ common @ common.T @ covariance
        values, vectors = torch.linalg.eigh(left)
        loadings = covariance @ individual
        close(loadings.square().sum(0), values.flip(0)[:width])
        close((vectors[:, -width:].T @ loadings).square().sum(), loadings.square().sum())


def test_scores_have_the_mean_that_the_correlations_say() -> None:
    sides = rows()
    found = of_rows(sides)
    first, second = codes(found, found.common(K), sides)
    scores = (first * second).sum(1)
    close(scores.sum() / (len(scores) - 1), found.rho[:K].sum())
    own = codes(found, found.individual(K), sides)[0].square().sum(1)
    close(own.sum() / (len(own) - 1), 6.0)


def test_shuffling_one_side_leaves_no_common_score_and_the_same_individual_ones() -> None:
    sides = rows()
    found = of_rows(sides)
    order = torch.randperm(len(sides[0]), generator=torch.Generator().manual_seed(0))
    mixed = (sides[0], sides[1][order])
    first, second = codes(found, found.common(K), mixed)
    assert (first * second).sum(1).mean().abs() < 3 * (K / len(order)) ** 0.5
    plain, shuffled = (codes(found, found.individual(K), pair)[1].square().sum(1) for pair in (sides, mixed))
    assert torch.equal(plain[order], shuffled)


def test_variance_is_split_between_common_and_individual_codes() -> None:
    found = of_population()
    for side in (0, 1):
        parts = [found.covariances[side] @ maps[side] for maps in (found.common(K), found.individual(K))]
        close(torch.stack([part.square().sum() for part in parts]).sum(), found.covariances[side].trace())
        close(found.covariances[side] @ found.maps[side] @ found.maps[side].T, torch.eye(WIDTHS[side]), 1e-8)


def test_gradients_of_scores_in_the_linear_world() -> None:
    """Facts F1 to F4 of section 5; gradients by autograd of scores of single samples."""
    found, (h1, h2) = of_population(), (side[:5].requires_grad_() for side in rows())
    (a1, a2), (b1, _) = found.common(K), found.individual(K)
    first, second = codes(found, (a1, a2), (h1, h2))
    (common,) = torch.autograd.grad((first * second).sum(), h1)
    (own,) = torch.autograd.grad(((h1 - found.means[0]) @ b1).square().sum(), h1)
    close(common, second @ a1.T)  # F1: the other modality's code alone
    close(common @ found.covariances[0] @ a1, second)  # F2
    full1, full2 = found.maps
    width = len(found.rho)
    cross = torch.from_numpy(population())[: WIDTHS[0], WIDTHS[0] :]
    weighted = (h2 - found.means[1]) @ full2[:, :width] * found.rho @ full1[:, :width].T @ found.covariances[0]
    close(weighted, torch.linalg.solve(found.covariances[1], (h2 - found.means[1]).T).T @ cross.T)  # F3
    close(torch.einsum("bd,de,be->b", common, found.covariances[0], own), 0.0)  # F4


def test_the_permutation_null_finds_the_common_dimensions() -> None:
    sides = rows()
    threshold = permutation_null(*sides, draws=50)
    assert 0.05 < threshold < 0.2 and threshold == permutation_null(*sides, draws=50)
    assert common_dimension(canonical_of_rows(*sides).rho, threshold) == K
    unrelated = (sides[0], sides[1].flip(0))
    assert common_dimension(canonical_of_rows(*unrelated).rho, threshold) == 0


def test_with_fewer_samples_than_features_a_ridge_or_the_rank_decides() -> None:
    first, second = rows()
    few = (first[:5], second[:5])
    plain = of_rows(few)
    assert [m.shape[1] for m in plain.maps] == [4, 4] and plain.rho.tolist() == pytest.approx([1.0] * 4)
    ridged = of_rows(few, ridge=1e-2)
    assert [m.shape[1] for m in ridged.maps] == list(WIDTHS) and ridged.rho.max() < 1


def test_shared_directions_of_two_groups_are_the_canonical_ones() -> None:
    widths = {("h", "first"): WIDTHS[0], ("h", "second"): WIDTHS[1]}
    white = whiten(Blocks(torch.from_numpy(population()), widths), ridge=0.0)
    first, second = shared_directions(white, K)
    close(first.T @ white.of(*widths) @ second, of_population().rho[:K].diag())
    close(first.T @ first, torch.eye(K))
    with pytest.raises(ValueError, match="7 common dimensions were asked for: a modality has only 6"):
        shared_directions(white, 7)


def test_principal_whitening_keeps_the_share_that_is_asked_for() -> None:
    covariance = torch.diag(torch.tensor([4.0, 90.0, 5.9, 0.1], dtype=torch.float64))
    for share, width in ((0.9, 1), (0.95, 2), (0.99, 3), (1.0, 4)):
        root = principal_whitening(covariance, share)
        assert root.shape == (4, width)
        close(root.T @ covariance @ root, torch.eye(width))
    with pytest.raises(ValueError, match="the same features in every sample"):
        principal_whitening(torch.zeros(2, 2))


def test_what_cannot_be_is_named() -> None:
    first, second = rows(10)
    for wrong in (second[:9], second[0]):
        with pytest.raises(ValueError, match="of the same n >= 2 samples"):
            canonical_of_rows(first, wrong)
    with pytest.raises(ValueError, match="ridge is -1"):
        canonical_of_rows(first, second, ridge=-1)
    found = canonical_of_rows(first, second)
    with pytest.raises(ValueError, match="7 common dimensions were asked for: there are between 0 and 6"):
        found.common(7)
    with pytest.raises(ValueError, match="7 individual dimensions were asked for: at most 6 are left"):
        found.individual(2, (7, 1))
    with pytest.raises(ValueError, match="the first 14 of 14 columns"):
        canonical(moments(torch.cat([first, second], dim=1), world=World.single()), 14)

"""InfoNCE of all kinds of targets where the value is known: collapse, orthonormal rows, seeded cases, special cases."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Labels, Mixup, Pair, Soft, contrastive
from tests.losses.run_cases import one

LAM = torch.tensor([0.9, 0.2, 1, 0.6, 1, 0.35, 0.5, 1], dtype=torch.float64)
PARTNER = torch.tensor([3, 0, 5, 1, 7, 2, 4, 6])
SIZES = pytest.mark.parametrize("size", [1, 2, 4, 64])


def eye(size: int) -> Tensor:
    """The identity in float64."""
    return torch.eye(size, dtype=torch.float64)


def seeded() -> tuple[Tensor, Tensor]:
    """Two sides [8, 5] from NumPy's seed 0."""
    random = np.random.default_rng(0)
    a, c = (torch.from_numpy(random.normal(size=(8, 5))) for _ in range(2))
    return a, c


def mixup(lam: Tensor, partner: Tensor) -> Mixup:
    """Shares ``lam`` of the own key, and the rest of the partner's."""
    return Mixup(lam, 1 - lam, partner)


def blend(rows: Tensor, lam: Tensor, partner: Tensor) -> Tensor:
    """Rows mixed with those of their partners."""
    return lam[:, None] * rows + (1 - lam[:, None]) * rows[partner]


@SIZES
def test_collapse_is_the_logarithm_of_the_number_of_candidates(size: int) -> None:
    rows = torch.full((size, 3), 0.3, dtype=torch.float64)
    labels = Labels(torch.arange(size) % 2)
    lam = torch.full((size,), 0.7, dtype=torch.float64)
    for targets in (None, labels, Soft(rows), mixup(lam, torch.arange(size).roll(1))):
        assert one(rows, rows.clone(), targets).loss.item() == pytest.approx(math.log(size), abs=1e-13)
    for targets in (None, labels):
        both = one(rows, rows.clone(), targets, same_side=True).loss.item()
        assert both == pytest.approx(math.log(2 * size - 1), abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0, 100.0])
def test_collapse_does_not_look_like_success(dtype: torch.dtype, scale: float) -> None:
    """Products of matrices and of rows round differently: a tie is one within rounding."""
    rows = torch.randn(1, 48, generator=torch.Generator().manual_seed(2)).to(dtype).expand(32, 48)
    result = one(rows, 3 * rows, scale=scale)
    assert result.accuracy == 0 and result.mean_rank == 32


@SIZES
@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
def test_orthonormal_pairs(size: int, scale: float) -> None:
    rows = eye(size)
    off = (size - 1) * math.exp(-scale)
    assert one(rows, rows.clone(), scale=scale).loss.item() == pytest.approx(math.log1p(off), rel=1e-12)
    both = one(rows, rows.clone(), scale=scale, same_side=True)
    assert both.loss.item() == pytest.approx(math.log1p(2 * off), rel=1e-12)
    assert both.accuracy == 1 and both.mean_rank == 1


@pytest.mark.parametrize(
    ("size", "collapsed", "orthonormal"), [(4, 1.9459101, 2.72362e-4), (64, 4.8441871, 5.70409e-3)]
)
def test_nt_xent_as_published_for_comm(size: int, collapsed: float, orthonormal: float) -> None:
    ones = torch.ones(size, 2, dtype=torch.float64)
    assert one(ones, ones.clone(), same_side=True).loss.item() == pytest.approx(collapsed, abs=5e-8)
    assert one(eye(size), eye(size), same_side=True).loss.item() == pytest.approx(orthonormal, rel=5e-6)


def test_nt_xent_is_cross_entropy_over_the_joined_sides() -> None:
    a, c = seeded()
    joined = torch.nn.functional.normalize(torch.cat([a, c]), dim=1)
    logits = (10 * joined @ joined.T).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(16).roll(8))
    assert one(a, c, same_side=True).loss.item() == pytest.approx(expected.item(), rel=1e-14)
    assert one(c, a, same_side=True).loss.item() == pytest.approx(expected.item(), rel=1e-14)


@pytest.mark.parametrize("copies", [2, 4])
def test_unrecognized_copies_bound_nt_xent_from_below(copies: int) -> None:
    a, c = (rows.repeat(copies, 1) for rows in seeded())
    assert one(a, c, same_side=True).loss >= math.log(2 * copies - 1)


@pytest.mark.parametrize(("temperature", "value"), [(0.07, 10.570957), (1.0, 2.277460), (0.01, 72.196775)])
def test_a_seeded_case(temperature: float, value: float) -> None:
    assert one(*seeded(), scale=1 / temperature).loss.item() == pytest.approx(value, abs=1e-6)


def test_a_seeded_case_by_torch() -> None:
    a, c = seeded()
    logits = 10 * torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(c).T
    entropies = [torch.nn.functional.cross_entropy(side, torch.arange(8)) for side in (logits, logits.T)]
    result = one(a, c)
    assert result.loss.item() == pytest.approx((entropies[0] + entropies[1]).item() / 2, rel=1e-14)
    hits = [(side.argmax(dim=1) == torch.arange(8)).double().mean() for side in (logits, logits.T)]
    assert result.accuracy.item() == pytest.approx((hits[0] + hits[1]).item() / 2)
    places = [(side > side.diagonal()[:, None]).sum(dim=1).double().mean() + 1 for side in (logits, logits.T)]
    assert result.mean_rank.item() == pytest.approx((places[0] + places[1]).item() / 2)


@pytest.mark.parametrize(("lam", "value"), [(0.7, 1.581102), (0.5, 0.693996), (1.0, 1.3619e-4), (0.0, 1.3619e-4)])
def test_mixup_of_the_identity(lam: float, value: float) -> None:
    lams, partner = torch.full((4,), lam, dtype=torch.float64), torch.tensor([1, 2, 3, 0])
    result = one(blend(eye(4), lams, partner), eye(4), mixup(lams, partner))
    assert result.loss.item() == pytest.approx(value, rel=1e-5)
    # Without a share of its own sample a row is as near to it as to any other: ties count against it.
    assert result.accuracy == (lam > 0)


def test_mixup_of_a_seeded_case() -> None:
    a, c = seeded()
    assert one(blend(a, LAM, PARTNER), c, mixup(LAM, PARTNER)).loss.item() == pytest.approx(5.182262, abs=1e-6)


def test_soft_targets_of_a_seeded_case() -> None:
    a, c = seeded()
    assert one(a, c, Soft(c), scale=torch.tensor([8.0])).loss.item() == pytest.approx(6.090675, abs=1e-6)
    assert one(c, a, Soft(a), scale=torch.tensor([8.0])).loss.item() == pytest.approx(6.104169, abs=1e-6)
    # The entropy of softmax(8, 0, 0, 0).
    assert one(eye(4), eye(4), Soft(eye(4)), scale=8.0).loss.item() == pytest.approx(0.00904889, abs=1e-8)


@pytest.mark.parametrize("same_side", [False, True])
def test_equal_labels_everywhere(same_side: bool) -> None:
    """L_i less the mean of all a row sees; orthonormal rows see their own counterpart at 1, all others at 0."""
    size, scale = 6, 4.0
    others = (size - 1) * (2 if same_side else 1)
    loss = one(eye(size), eye(size), Labels(torch.zeros(size).long()), scale=scale, same_side=same_side).loss
    expected = math.log(math.exp(scale) + others) - scale / (1 + others)
    assert loss.item() == pytest.approx(expected, rel=1e-13)


SPECIAL_CASES: dict[str, Callable[[int], Mixup | Labels | Soft]] = {
    "nothing mixed in": lambda n: mixup(torch.ones(n, dtype=torch.float64), torch.arange(n).roll(3)),
    "mixed with itself": lambda n: mixup(torch.full((n,), 0.3, dtype=torch.float64), torch.arange(n)),
    "all labels different": lambda n: Labels(torch.arange(n)),
    "resembles itself alone": lambda n: Soft(eye(n), scale=600.0),
}


@pytest.mark.parametrize("name", SPECIAL_CASES)
@pytest.mark.parametrize("keep_mb", [0, 64])
def test_what_comes_down_to_the_diagonal(name: str, keep_mb: int) -> None:
    settings = ObjectiveConfig(tile=3, keep_mb=keep_mb)
    results = []
    for targets in (None, SPECIAL_CASES[name](8)):
        a, c = (rows.requires_grad_() for rows in seeded())
        result = one(a, c, targets, settings=settings)
        results.append((result.loss, *torch.autograd.grad(result.loss, (a, c)), result.accuracy, result.mean_rank))
    for plain, special in zip(*results, strict=True):
        torch.testing.assert_close(special, plain, rtol=1e-12, atol=1e-14)


def test_different_labels_with_the_own_side_are_nt_xent() -> None:
    a, c = seeded()
    plain, labeled = one(a, c, same_side=True), one(a, c, Labels(torch.arange(8)), same_side=True)
    assert labeled.loss.item() == pytest.approx(plain.loss.item(), rel=1e-14)


def test_targets_do_not_count_against_the_own_counterpart() -> None:
    """Row 0's nearest key is row 1, which it contains or shares its label with."""
    query = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    key = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    plain = one(query, key)
    # Row 0: key 1 before key 0. Row 1: key 0 before key 1, which key 2 is as near as. Columns: query 1 is as near to
    # key 0 as query 0; query 0 before query 1 for key 1, and query 2 as near.
    assert plain.mean_rank.item() == pytest.approx((2 + 3 + 1 + 2 + 3 + 1) / 6)
    assert plain.accuracy.item() == pytest.approx(2 / 6)
    labeled = one(query, key, Labels(torch.tensor([4, 4, 5])))
    assert labeled.mean_rank.item() == pytest.approx((1 + 2 + 1 + 1 + 2 + 1) / 6)
    assert labeled.accuracy.item() == pytest.approx(4 / 6)
    own = torch.tensor([0.5, 1, 1], dtype=torch.float64)
    mixed = one(query, key, mixup(own, torch.tensor([1, 2, 0])))
    assert mixed.mean_rank.item() == pytest.approx((1 + 3 + 1 + 2 + 2 + 1) / 6)


@pytest.mark.parametrize("seed", range(6))
def test_rounded_products_round_the_own_counterpart_as_well(seed: int) -> None:
    rows = torch.randn(1, 48, generator=torch.Generator().manual_seed(seed)).expand(64, 48)
    settings = ObjectiveConfig(products=Products.bfloat16)
    (result,) = contrastive([Pair(rows, rows)], scale=100.0, world=World.single(), settings=settings)
    assert result.loss.item() == pytest.approx(math.log(64), abs=1e-4)
    assert result.accuracy == 0 and result.mean_rank == 64

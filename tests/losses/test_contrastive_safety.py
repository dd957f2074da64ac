"""InfoNCE in float32 where numbers are extreme: scales, opposite and separated embeddings, collapse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Soft
from mmpretrain.losses.targets import Targets
from tests.losses import oracle
from tests.losses.run_cases import one

SIZE, WIDTH = 24, 16
LABELS = torch.arange(SIZE) % 3
PARTNER = torch.arange(SIZE).roll(5)
AGAIN = ObjectiveConfig(tile=7, keep_mb=0)
SETTINGS = pytest.mark.parametrize("config", [AGAIN, ObjectiveConfig()], ids=["computed again", "kept"])
Gradients = tuple[Tensor | None, ...]


def random_sides(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two normal sides [SIZE, WIDTH]."""
    query, key = torch.randn(2, SIZE, WIDTH, generator=torch.Generator().manual_seed(seed))
    return query, key


def random_() -> tuple[Tensor, Tensor]:
    """The sides of seed 0."""
    return random_sides()


def opposite() -> tuple[Tensor, Tensor]:
    """Every positive at cosine -1."""
    query, _ = random_sides()
    return query, -query


def far_apart() -> tuple[Tensor, Tensor]:
    """Every cosine between the sides below -0.5: the largest logit of a row is far below the scale."""
    query, key = random_sides()
    offset = torch.eye(WIDTH)[0] * 9
    return query + offset, key - offset


def one_far_away() -> tuple[Tensor, Tensor]:
    """One row's cosines are all near -1, the others are near their counterparts."""
    query, key = random_sides()
    offset = torch.eye(WIDTH)[0] * 20
    key = query + 0.3 * key + offset
    query = query + offset
    query[3] = -query[3]
    return query, key


CONFIGURATIONS = pytest.mark.parametrize("sides", [random_, opposite, far_apart, one_far_away])
Kinds = dict[str, tuple[Callable[[Tensor], Diagonal | Labels | Soft | Mixup], Callable[[Tensor], oracle.Belonging]]]
OWN = torch.linspace(0.1, 1, SIZE)
KINDS: Kinds = {
    "diagonal": (lambda key: Diagonal(), lambda key: None),
    "mixup": (lambda key: Mixup(OWN, 1 - OWN, PARTNER), lambda key: oracle.Partners(OWN, 1 - OWN, PARTNER)),
    "labels": (lambda key: Labels(LABELS), lambda key: oracle.Classes(LABELS)),
    "soft": (lambda key: Soft(key, scale=50.0), lambda key: oracle.Likeness(key, 50.0)),
}
TARGETS = pytest.mark.parametrize(
    ("kind", "same_side"), [*((kind, False) for kind in KINDS), ("diagonal", True), ("labels", True)]
)


def leaf(rows: Tensor) -> Tensor:
    """A copy that asks for gradients."""
    return rows.clone().requires_grad_()


def relative(found: Tensor, exact: Tensor) -> float:
    """The largest error, relative to the largest exact value."""
    assert found.isfinite().all()
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


@CONFIGURATIONS
@SETTINGS
@pytest.mark.parametrize("scale", [1e-3, 57.0, 100.0, 600.0])
@TARGETS
def test_float32_is_right_at_any_scale(
    sides: Callable[[], tuple[Tensor, Tensor]], config: ObjectiveConfig, scale: float, kind: str, same_side: bool
) -> None:
    query, key = sides()
    assert sides is not far_apart or (oracle.unit(query) @ oracle.unit(key).T).max() < -0.5
    ours = (leaf(query), leaf(key), torch.tensor([scale], requires_grad=True))
    targets, belonging = KINDS[kind]
    result = one(ours[0], ours[1], targets(ours[1]), scale=ours[2], settings=config, same_side=same_side)
    exact = [leaf(side.double()) for side in ours]
    dense = oracle.contrast(exact[0], exact[1], exact[2], belonging(exact[1]), same_side=same_side)
    assert result.loss.item() == pytest.approx(dense.loss.item(), rel=2e-5)
    assert result.accuracy.item() == pytest.approx(dense.accuracy, abs=1e-6)
    assert result.mean_rank.item() == pytest.approx(dense.mean_rank, abs=1e-5)
    # A gradient that vanishes as the scale does is as exact as the sum of terms that it is the difference of.
    floor = 1e-6 * scale
    found = torch.autograd.grad(result.loss, ours)
    for gradient, reference in zip(found, torch.autograd.grad(dense.loss, exact), strict=True):
        assert gradient.isfinite().all()
        assert (gradient.double() - reference).abs().max() <= 1e-4 * reference.abs().max() + floor


@SETTINGS
@pytest.mark.parametrize("scale", [20.0, 60.0, 80.0])
def test_separated_pairs_keep_their_digits(config: ObjectiveConfig, scale: float) -> None:
    query, key, factor = leaf(torch.eye(SIZE)), leaf(torch.eye(SIZE)), torch.tensor([scale], requires_grad=True)
    loss = one(query, key, scale=factor, settings=config).loss
    off = math.exp(-scale)
    assert loss.item() == pytest.approx((SIZE - 1) * off / (1 + off), rel=1e-5)
    found = torch.autograd.grad(loss, (query, key, factor))
    # dL/dS_ij = p_ij / N off the diagonal; along its own unit row a gradient vanishes.
    for gradient in found[:2]:
        expected = scale * off / SIZE * (1 - torch.eye(SIZE, dtype=torch.float64))
        assert relative(gradient, expected) < 1e-4
    assert found[2].item() == pytest.approx(-(SIZE - 1) * off, rel=1e-4)


@SETTINGS
@pytest.mark.parametrize("scale", [100.0, 300.0, 600.0])
def test_perfect_separation_is_zero_and_never_negative(config: ObjectiveConfig, scale: float) -> None:
    query, key = leaf(torch.eye(SIZE)), leaf(torch.eye(SIZE))
    result = one(query, key, scale=scale, settings=config)
    assert 0 <= result.loss.item() < 1e-40
    result.loss.backward()
    assert query.grad is not None and query.grad.abs().max() < 1e-38


@SETTINGS
@pytest.mark.parametrize("scale", [1e-3, 100.0, 600.0])
@pytest.mark.parametrize("same_side", [False, True])
@pytest.mark.parametrize("length", [0.0, 1e-12, 0.3, 1e12])
def test_collapse(config: ObjectiveConfig, scale: float, same_side: bool, length: float) -> None:
    """All embeddings equal (or zero): the logarithm of the number of candidates, and no gradient to speak of."""
    query, key = (leaf(torch.full((SIZE, 3), length)) for _ in range(2))
    result = one(query, key, scale=scale, settings=config, same_side=same_side)
    candidates = 2 * SIZE - 1 if same_side else SIZE
    assert result.loss.item() == pytest.approx(math.log(candidates), abs=1e-4)
    gradient = torch.autograd.grad(result.loss, query)[0]
    assert gradient.isfinite().all() and gradient.abs().max() * length <= 1e-4 * max(scale, 1)


@TARGETS
def test_a_batch_of_one_teaches_nothing(kind: str, same_side: bool) -> None:
    query, key = (leaf(rows[:1]) for rows in random_sides())
    targets: dict[str, Targets] = {
        "mixup": Mixup(torch.ones(1) * 0.4, torch.ones(1) * 0.6, torch.zeros(1).long()),
        "labels": Labels(torch.zeros(1).long()),
        "soft": Soft(key),
    }
    result = one(query, key, targets.get(kind, Diagonal()), scale=100.0, same_side=same_side)
    # Soft targets weigh similarities of 100, which float32 knows to 4e-6.
    assert abs(result.loss.item()) <= (1e-5 if kind == "soft" else 0)
    assert result.accuracy == 1 and result.mean_rank == 1
    for gradient in torch.autograd.grad(result.loss, (query, key)):
        assert gradient.abs().max() <= (1e-5 if kind == "soft" else 0)

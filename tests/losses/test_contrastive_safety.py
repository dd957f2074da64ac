"""InfoNCE in float32 where numbers are extreme, and with rows that are missing, zero, or not numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, PairLoss, Soft
from mmpretrain.losses.schema import ObjectiveConfig, Products
from tests.losses import oracle
from tests.losses.cases import one

SIZE, WIDTH = 24, 16
LABELS = torch.arange(SIZE) % 3
PARTNER = torch.arange(SIZE).roll(5)
AGAIN = ObjectiveConfig(tile=7, keep_mb=0)
SETTINGS = pytest.mark.parametrize("config", [AGAIN, ObjectiveConfig()], ids=["computed again", "kept"])
Gradients = tuple[Tensor | None, ...]


def random_sides(seed: int = 0) -> tuple[Tensor, Tensor]:
    query, key = torch.randn(2, SIZE, WIDTH, generator=torch.Generator().manual_seed(seed))
    return query, key


def random_() -> tuple[Tensor, Tensor]:
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
    return rows.clone().requires_grad_()


def relative(found: Tensor, exact: Tensor) -> float:
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
    ours = [leaf(query), leaf(key), torch.tensor([scale], requires_grad=True)]
    targets, belonging = KINDS[kind]
    result = one(*ours[:2], targets(ours[1]), scale=ours[2], settings=config, same_side=same_side)
    exact = [leaf(side.double()) for side in ours]
    dense = oracle.contrast(*exact, belonging(exact[1]), same_side=same_side)
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
    targets = {
        "mixup": Mixup(torch.ones(1) * 0.4, torch.ones(1) * 0.6, torch.zeros(1).long()),
        "labels": Labels(torch.zeros(1).long()),
        "soft": Soft(key),
    }.get(kind, Diagonal())
    result = one(query, key, targets, scale=100.0, same_side=same_side)
    # Soft targets weigh similarities of 100, which float32 knows to 4e-6.
    assert abs(result.loss.item()) <= (1e-5 if kind == "soft" else 0)
    assert result.accuracy == 1 and result.mean_rank == 1
    for gradient in torch.autograd.grad(result.loss, (query, key)):
        assert gradient.abs().max() <= (1e-5 if kind == "soft" else 0)


@SETTINGS
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_length_zero(config: ObjectiveConfig, kind: str) -> None:
    query, key = random_sides()
    query[2], key[5], query[7], key[7] = 0, 0, 0, 0
    ours, exact = (leaf(query), leaf(key)), (leaf(query.double()), leaf(key.double()))
    targets, belonging = KINDS[kind]
    loss = one(*ours, targets(ours[1]), scale=20.0, settings=config).loss
    dense = oracle.contrast(*exact, 20.0, belonging(exact[1])).loss
    assert loss.item() == pytest.approx(dense.item(), rel=1e-5)
    for found, reference in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(dense, exact), strict=True):
        assert relative(found, reference) < 1e-4


@SETTINGS
@pytest.mark.parametrize("filling", [math.nan, math.inf, 3e38])
@TARGETS
def test_what_missing_rows_hold_leaks_nowhere(
    config: ObjectiveConfig, filling: float, kind: str, same_side: bool
) -> None:
    query_valid, key_valid = torch.ones(2, SIZE, dtype=torch.bool)
    query_valid[[1, 4, 9]] = False
    key_valid[[4, 20]] = False
    results = []
    for value in (0.0, filling):
        query, key = random_sides()
        query[~query_valid], key[~key_valid] = value, value
        sides = leaf(query), leaf(key)
        result = one(
            *sides,
            KINDS[kind][0](sides[1]),
            scale=30.0,
            settings=config,
            same_side=same_side,
            valid=(query_valid, key_valid),
        )
        results.append((result, torch.autograd.grad(result.loss, sides)))
    (zeros, grads), (filled, others) = results
    assert zeros == filled and zeros.loss.isfinite()
    for gradient, other, valid in zip(grads, others, (query_valid, key_valid), strict=True):
        assert torch.equal(gradient, other)
        assert (gradient[~valid] == 0).all() and (gradient[valid].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_modality_that_nobody_has(kind: str) -> None:
    query, key = (leaf(rows) for rows in random_sides())
    nobody = torch.zeros(SIZE, dtype=torch.bool)
    for valid in ((nobody, None), (None, nobody), (nobody, nobody)):
        result = one(query, key, KINDS[kind][0](key), scale=torch.tensor([9.0], requires_grad=True), valid=valid)
        assert result.loss == 0
        assert all((gradient == 0).all() for gradient in torch.autograd.grad(result.loss, (query, key)))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_a_visible_row_that_is_no_number_shows_in_the_loss(side: int, scale: float) -> None:
    sides = random_sides()
    sides[side][3, 2] = math.nan
    assert one(*sides, scale=scale).loss.isnan()


def loss_and_gradients(query: Tensor, key: Tensor, scale: float, **options: ObjectiveConfig) -> tuple:
    sides, factor = (leaf(query), leaf(key)), torch.tensor([scale], requires_grad=True)
    result: PairLoss = one(*sides, scale=factor, **options)
    result.loss.backward()
    return result.loss.detach(), sides[0].grad, sides[1].grad, factor.grad


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_precision_inputs_are_widened(dtype: torch.dtype, rounding: float) -> None:
    query, key = (side.to(dtype) for side in random_sides())
    loss, *found = loss_and_gradients(query, key, 100.0)
    exact, *reference = loss_and_gradients(query.float(), key.float(), 100.0)
    assert loss.dtype is torch.float32 and torch.equal(loss, exact)
    assert [gradient.dtype for gradient in found] == [dtype, dtype, torch.float32]
    for gradient, wide in zip(found, reference, strict=True):
        assert relative(gradient, wide.double()) <= 2 * rounding


def test_the_loss_is_close_to_that_of_what_was_rounded() -> None:
    query, key = random_sides()
    exact = loss_and_gradients(query, key, 100.0)[0].item()
    for dtype, error in ((torch.bfloat16, 0.02), (torch.float16, 0.002)):
        assert loss_and_gradients(query.to(dtype), key.to(dtype), 100.0)[0].item() == pytest.approx(exact, rel=error)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    query, key = random_sides()
    plain = loss_and_gradients(query, key, 100.0)
    with torch.autocast("cpu", dtype):
        inside = loss_and_gradients(query, key, 100.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_rounded_products_are_close_and_sums_stay_exact() -> None:
    query, key = random_sides()
    exact = loss_and_gradients(query, key, 10.0)
    rounded = loss_and_gradients(query, key, 10.0, settings=ObjectiveConfig(products=Products.bfloat16))
    assert rounded[0].dtype is torch.float32 and rounded[0] != exact[0]
    assert rounded[0].item() == pytest.approx(exact[0].item(), rel=0.01)
    for gradient, reference in zip(rounded[1:], exact[1:], strict=True):
        assert relative(gradient, reference.double()) < 0.03


def test_a_temperature_may_be_wider_or_narrower_than_the_embeddings() -> None:
    query, key = random_sides()
    values = []
    for sides in ((query, key), (query.double(), key.double()), (query.bfloat16(), key.bfloat16())):
        for dtype in (torch.float32, torch.float64):
            scale = torch.tensor([8.0], dtype=dtype, requires_grad=True)
            loss = one(*sides, scale=scale).loss
            (gradient,) = torch.autograd.grad(loss, scale)
            assert gradient.dtype is dtype
            values.append((loss.item(), gradient.item()))
    for loss, gradient in values:
        assert (loss, gradient) == pytest.approx(values[0], rel=0.01)

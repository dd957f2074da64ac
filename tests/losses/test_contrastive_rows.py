"""InfoNCE with rows that are missing, zero or not numbers, and with other types than float32."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import ObjectiveConfig, Products
from mmpretrain.losses.contrastive import PairLoss
from tests.losses import oracle
from tests.losses.run_cases import one
from tests.losses.test_contrastive_safety import KINDS, SETTINGS, SIZE, TARGETS, leaf, random_sides, relative


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


def loss_and_gradients(query: Tensor, key: Tensor, scale: float, **options: Any) -> tuple:
    """The loss of one pair, and the gradients of both sides and of the scale."""
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


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_rounded_products_are_close_and_sums_stay_exact(scale: float) -> None:
    """No similarity is off by more than scale / 256, nor the loss by more than twice that; here by far less."""
    query, key = random_sides()
    exact = loss_and_gradients(query, key, scale)
    rounded = loss_and_gradients(query, key, scale, settings=ObjectiveConfig(products=Products.bfloat16))
    assert rounded[0].dtype is torch.float32 and rounded[0] != exact[0]
    assert rounded[0].item() == pytest.approx(exact[0].item(), rel=0.01)
    for gradient, reference in zip(rounded[1:], exact[1:], strict=True):
        assert relative(gradient, reference.double()) < 0.03


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_rounded_products_are_those_of_rounded_rows(scale: float) -> None:
    """The dense formula on rows that were rounded as the loss does it: the loss to float32's digits."""
    sides = random_sides()
    loss, *found = loss_and_gradients(*sides, scale, settings=ObjectiveConfig(products=Products.bfloat16))
    leaves = [leaf(side.double()) for side in sides]
    factor = torch.tensor([scale], dtype=torch.float64, requires_grad=True)
    longer = [oracle.unit(side) * factor.sqrt() for side in leaves]
    # Rounding passes gradients on as they are.
    rows = [side + (side.float().bfloat16().double() - side).detach() for side in longer]
    logits, own = rows[0] @ rows[1].T, torch.arange(len(rows[0]))
    dense = torch.stack([torch.nn.functional.cross_entropy(side, own) for side in (logits, logits.T)]).mean()
    assert loss.item() == pytest.approx(dense.item(), rel=1e-6)
    for gradient, reference in zip(found, torch.autograd.grad(dense, [*leaves, factor]), strict=True):
        assert relative(gradient, reference) < 2**-8


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
    for found in values:
        assert found == pytest.approx(values[0], rel=0.01)

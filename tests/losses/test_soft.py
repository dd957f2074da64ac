"""The soft contrastive loss: known values, properties, duplicates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.losses.soft import soft_contrastive
from tests.losses import oracle


def one(a: Tensor, b: Tensor, ids: Tensor | None = None, detach: bool = False) -> Tensor:
    pairs = [(a, b)]
    world = World.single()
    return soft_contrastive(pairs, scale=8.0, world=world, sample_ids=ids, detach_targets=detach)[0].loss


def test_known_values_of_a_seeded_case() -> None:
    random = np.random.default_rng(0)
    a, c = torch.from_numpy(random.normal(size=(8, 5))), torch.from_numpy(random.normal(size=(8, 5)))
    before = a.clone(), c.clone()
    forth, back = soft_contrastive([(a, c), (c, a)], scale=torch.tensor([8.0]), world=World.single())
    assert forth.loss.item() == pytest.approx(6.090675, abs=1e-6)
    assert back.loss.item() == pytest.approx(6.104169, abs=1e-6)
    assert torch.equal(a, before[0]) and torch.equal(c, before[1])


def test_identity_gives_the_entropy_and_equal_embeddings_give_log_n() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    assert one(eye, eye.clone()).item() == pytest.approx(0.00904889, abs=1e-8)
    same = torch.full((4, 3), 0.3, dtype=torch.float64)
    assert one(same, same.clone()).item() == pytest.approx(math.log(4), rel=1e-14)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 6))
def test_properties_of_random_batches(seed: int, size: int, width: int) -> None:
    """Dense formula with duplicates; scale invariance; joint permutation."""
    torch.manual_seed(seed)
    a, b = torch.randn(2, size, width, dtype=torch.float64)
    ids, order = torch.randint(0, size, (size,)), torch.randperm(size)
    result = one(a, b, ids).item()
    assert result == pytest.approx(oracle.soft_loss(a, b, 8.0, ids.tolist()).item(), rel=1e-9, abs=1e-12)
    factors = torch.rand(size, 1, dtype=torch.float64) + 0.1
    assert one(factors * a, 5 * b, ids).item() == pytest.approx(result, rel=1e-9)
    assert one(a[order], b[order], ids[order]).item() == pytest.approx(result, rel=1e-9)


def test_gradient_goes_through_the_targets_unless_detached() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)
    grads = {}
    for detach in (False, True):
        leaf = b.clone().requires_grad_()
        one(a, leaf, detach=detach).backward()
        reference = b.clone().requires_grad_()
        oracle.soft_loss(a, reference, 8.0, list(range(6)), detach).backward()
        assert leaf.grad is not None and reference.grad is not None
        torch.testing.assert_close(leaf.grad, reference.grad)
        grads[detach] = leaf.grad
    assert not torch.allclose(grads[False], grads[True])


def test_a_copy_takes_no_part_in_the_rows_of_its_twin() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 4, dtype=torch.float64)
    twice = torch.tensor([0, 0, 1])
    resemblance, logits = 8 * oracle.unit(b) @ oracle.unit(b).T, 8 * oracle.unit(a) @ oracle.unit(b).T

    def row(i: int, seen: list[int]) -> Tensor:
        halves = logits[i, seen].log_softmax(0) + logits.T[i, seen].log_softmax(0)
        return -(resemblance[i, seen].softmax(0) * halves).sum() / 2

    # Each twin sees a batch of two, as if the other were not there; the third row sees three.
    expected = (2 * row(0, [0, 1]) + row(1, [0, 0, 1])) / 3
    assert one(a[twice], b[twice], twice).item() == pytest.approx(expected.item())

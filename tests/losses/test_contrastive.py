"""InfoNCE with diagonal and mixup targets: known values, properties, duplicates, edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Mixup, Pair, contrastive, target_block
from mmpretrain.losses.similarity import PairLoss
from tests.losses import oracle

ALONE = World.single()


def one(
    query: Tensor,
    key: Tensor,
    targets: Diagonal | Mixup | None = None,
    scale: Tensor | float = 10.0,
    ids: Tensor | None = None,
) -> PairLoss:
    return contrastive([Pair(query, key, targets or Diagonal())], scale=scale, world=ALONE, sample_ids=ids)[0]


def mixup(lam: Tensor, partner: Tensor) -> Mixup:
    return Mixup(lam, 1 - lam, partner)


def blend(rows: Tensor, lam: Tensor, partner: Tensor) -> Tensor:
    return lam[:, None] * rows + (1 - lam[:, None]) * rows[partner]


def seeded() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = np.random.default_rng(0)
    a, c = torch.from_numpy(random.normal(size=(8, 5))), torch.from_numpy(random.normal(size=(8, 5)))
    lam = torch.tensor([0.9, 0.2, 1, 0.6, 1, 0.35, 0.5, 1], dtype=torch.float64)
    return a, c, lam, torch.tensor([3, 0, 5, 1, 7, 2, 4, 6])


@pytest.mark.parametrize(("lam", "value"), [(0.7, 1.581102), (0.5, 0.693996), (1.0, 1.3619e-4), (0.0, 1.3619e-4)])
def test_known_values_on_identity_embeddings(lam: float, value: float) -> None:
    eye, partner = torch.eye(4, dtype=torch.float64), torch.tensor([1, 2, 3, 0])
    lams = torch.full((4,), lam, dtype=torch.float64)
    result = one(blend(eye, lams, partner), eye.clone(), mixup(lams, partner))
    assert result.loss.item() == pytest.approx(value, rel=1e-5)
    assert result.accuracy == 1


def test_unmixed_rows_are_plain_info_nce() -> None:
    a, c, lam, partner = seeded()
    plain = one(a, c).loss
    assert one(a, c, mixup(torch.ones_like(lam), partner)).loss.item() == pytest.approx(plain.item(), rel=1e-14)
    both = 10 * oracle.unit(a) @ oracle.unit(c).T
    labels = torch.arange(8)
    expected = (oracle.nll(both, labels) + oracle.nll(both.T, labels)) / 2
    assert plain.item() == pytest.approx(expected.item(), rel=1e-14)


def test_known_value_of_a_seeded_case() -> None:
    a, c, lam, partner = seeded()
    assert one(blend(a, lam, partner), c, mixup(lam, partner)).loss.item() == pytest.approx(5.182262, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 6))
def test_properties_of_random_batches(seed: int, size: int, width: int) -> None:
    """Dense formula; scale invariance; joint permutation; targets that sum to 1; with duplicates and self-pairs."""
    torch.manual_seed(seed)
    query, key = torch.randn(2, size, width, dtype=torch.float64)
    lam = torch.rand(size, dtype=torch.float64).where(torch.rand(size) < 0.5, torch.ones(()))
    partner, order = torch.randperm(size), torch.randperm(size)
    ids = torch.randint(0, size, (size,))
    result = one(query, key, mixup(lam, partner), ids=ids).loss.item()
    targets = oracle.mixup_targets(lam, partner)
    assert result == pytest.approx(oracle.info_nce(query, key, 10, targets, ids.tolist()).item(), rel=1e-9, abs=1e-12)
    factors = torch.rand(size, 1, dtype=torch.float64) + 0.1
    assert one(factors * query, 7 * key, mixup(lam, partner), ids=ids).loss.item() == pytest.approx(result, rel=1e-9)
    moved = mixup(lam[order], order.argsort()[partner[order]])
    assert one(query[order], key[order], moved, ids=ids[order]).loss.item() == pytest.approx(result, rel=1e-9)
    everyone = torch.arange(size)
    block = target_block(mixup(lam, partner), everyone, everyone)
    torch.testing.assert_close(block, targets)
    torch.testing.assert_close(block.sum(dim=1), torch.ones_like(lam))


def test_a_copy_of_a_sample_is_no_negative_of_it() -> None:
    a, c, _, _ = seeded()
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


@pytest.mark.parametrize(("lam", "hidden"), [(0.4, [(1, 6), (6, 1), (0, 6)]), (1.0, [(1, 6), (6, 1)])])
def test_copies_of_the_partner_are_masked_where_it_was_mixed_in(lam: float, hidden: list[tuple[int, int]]) -> None:
    a, c, _, _ = seeded()
    partner = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 1, 7])  # row 6 is a copy of row 0's partner
    lams = torch.tensor([lam, 1, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    logits, targets = 10 * oracle.unit(a) @ oracle.unit(c).T, oracle.mixup_targets(lams, partner)
    gone = torch.zeros(8, 8, dtype=torch.bool)
    gone[tuple(zip(*hidden, strict=True))] = True
    rows = oracle.weighted_log_softmax(logits, targets, gone)
    columns = oracle.weighted_log_softmax(logits.T, targets.T, gone.T)
    expected = -(rows + columns).item() / 16
    assert one(a, c, mixup(lams, partner), ids=ids).loss.item() == pytest.approx(expected)


def test_small_losses_at_the_highest_scale_keep_their_digits() -> None:
    eye = torch.eye(4)
    exact = one(eye.double(), eye.double().clone(), scale=12.0).loss
    assert exact < 2e-5
    assert one(eye, eye.clone(), scale=12.0).loss.item() == pytest.approx(exact.item(), abs=1.2e-7)
    assert one(eye, eye.clone(), scale=100.0).loss == 0


@pytest.mark.parametrize("size", [1, 2, 5])
def test_identical_and_zero_embeddings_are_finite(size: int) -> None:
    for rows in (torch.ones(size, 3), torch.zeros(size, 3)):
        query, key = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        loss = one(query, key, scale=100.0).loss
        assert loss.item() == pytest.approx(np.log(size), abs=1e-5)
        loss.backward()
        assert query.grad is not None and query.grad.abs().max() < 100


def test_half_precision_and_autocast_compute_in_float32() -> None:
    a, c, _, _ = seeded()
    a, c = a.bfloat16(), c.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = one(a, c, scale=100.0).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(one(a.double(), c.double(), scale=100.0).loss.item(), rel=1e-5)


def test_temperature_gets_its_gradient_and_inputs_stay() -> None:
    a, c, lam, partner = seeded()
    before = [t.clone() for t in (a, c, lam, partner)]
    scale = torch.tensor([3.0], requires_grad=True)
    loss = lambda s: one(a, c, mixup(lam, partner), scale=s).loss  # noqa: E731
    loss(scale).backward()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx((loss(3.001) - loss(2.999)).item() / 0.002, rel=1e-4)
    assert all(torch.equal(x, y) for x, y in zip(before, (a, c, lam, partner), strict=True))


def test_several_pairs_at_once_equal_single_calls() -> None:
    a, c, lam, partner = seeded()
    pairs = [Pair(a, c), Pair(c, a, mixup(lam, partner)), Pair(a, a.flip(1))]
    together = contrastive(pairs, scale=5.0, world=ALONE)
    for pair, result in zip(pairs, together, strict=True):
        assert result.loss.item() == pytest.approx(one(pair.query, pair.key, pair.targets, 5.0).loss.item())


def test_pairs_of_different_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[4, 3\] and \[4, 5\].*model.embed_dim"):
        one(torch.ones(4, 3), torch.ones(4, 5))

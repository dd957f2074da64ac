"""The sigmoid loss: known values, the dense formula with all gradients on 1, 2 and 4 ranks, masks, copies, edges."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Labels, Pair, PairLoss
from tests.losses import oracle
from tests.rank_pool import Ranks

ALONE = World.single()
WIDTH, BATCH = 5, 8
WEIGHTS = (1.0, -0.7)


@dataclass
class Case:
    """A whole batch of three modalities; pairs (0, 1) and (2, 1), so that one key serves two pairs."""

    sides: list[Tensor]
    scale: Tensor
    bias: Tensor
    valid: list[Tensor] | None = None
    ids: Tensor | None = None

    @classmethod
    def random(cls, seed: int, masks: bool = False, copies: bool = False, size: int = BATCH) -> Case:
        """A case from a seed; with masks, with copies of samples."""
        torch.manual_seed(seed)
        return cls(
            list(torch.randn(3, size, WIDTH, dtype=torch.float64)),
            torch.tensor([7.0], dtype=torch.float64),
            torch.tensor([-3.0], dtype=torch.float64),
            list(torch.rand(3, size) < 0.7) if masks else None,
            torch.randint(0, 4, (size,)) if copies else None,
        )

    def part(self, rank: int, world: int) -> Case:
        """One rank's rows, as leaves."""
        rows = slice(rank * len(self.sides[0]) // world, (rank + 1) * len(self.sides[0]) // world)
        return replace(
            self,
            sides=[side[rows].clone().requires_grad_() for side in self.sides],
            scale=self.scale.clone().requires_grad_(),
            bias=self.bias.clone().requires_grad_(),
            valid=None if self.valid is None else [mask[rows] for mask in self.valid],
            ids=None if self.ids is None else self.ids[rows],
        )

    def losses(self, world: World, settings: ObjectiveConfig) -> list[PairLoss]:
        """Of both pairs, which share side b."""
        a, b, c = self.sides
        va, vb, vc = self.valid or (None, None, None)
        pairs = [Pair(a, b, query_valid=va, key_valid=vb), Pair(c, b, query_valid=vc, key_valid=vb)]
        return sigmoid_contrastive(
            pairs, scale=self.scale, bias=self.bias, world=world, settings=settings, sample_ids=self.ids
        )

    def gradients(self, total: Tensor) -> list[Tensor]:
        """Of all sides, the scale and the bias by ``total``."""
        return list(torch.autograd.grad(total, [*self.sides, self.scale, self.bias], materialize_grads=True))


def dense(query: Tensor, key: Tensor, case: Case, valid: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
    """Equation 1 entry by entry, and the share of rows whose own key is the nearest."""
    size = len(query)
    unit = [
        torch.stack([oracle.unit(row[None])[0] if ok else row * 0 for row, ok in zip(side, mask, strict=True)])
        for side, mask in zip((query, key), valid, strict=True)
    ]
    logits = case.scale * unit[0] @ unit[1].T + case.bias
    total, hits = logits.new_zeros(()), 0
    paired = int((valid[0] & valid[1]).sum())
    for i in range(size):
        others = []
        for j in range(size):
            if not (valid[0][i] and valid[1][j]) or (i != j and case.ids is not None and case.ids[i] == case.ids[j]):
                continue
            total = total - torch.log(torch.sigmoid(logits[i, j] if i == j else -logits[i, j]))
            others += [logits[i, j].item()] if i != j else []
        hits += bool(valid[0][i] and valid[1][i] and all(logits[i, i] > other for other in others))
    return (total / paired, hits / paired) if paired else (logits.sum() * 0, 0.0)


def expected(case: Case) -> tuple[list[float], list[float], list[Tensor]]:
    """Losses, accuracies and all gradients of the weighted sum, on one process."""
    whole = case.part(0, 1)
    every = torch.ones(len(whole.sides[0]), dtype=torch.bool)
    a, b, c = whole.valid or [every] * 3
    found = [dense(whole.sides[0], whole.sides[1], whole, (a, b)), dense(whole.sides[2], whole.sides[1], whole, (c, b))]
    total = torch.stack([weight * loss for weight, (loss, _) in zip(WEIGHTS, found, strict=True)]).sum()
    return [loss.item() for loss, _ in found], [hits for _, hits in found], whole.gradients(total)


def one_rank(case: Case, settings: ObjectiveConfig) -> tuple[list[float], list[float], list[Tensor]]:
    """Losses, accuracies and gradients on this rank's rows."""
    world = World.current()
    own = case.part(world.rank, world.size)
    results = own.losses(world, settings)
    total = torch.stack([weight * result.loss for weight, result in zip(WEIGHTS, results, strict=True)]).sum()
    return [r.loss.item() for r in results], [r.accuracy.item() for r in results], own.gradients(total)


def compare(case: Case, found: list[tuple[list[float], list[float], list[Tensor]]]) -> None:
    """The ranks' results against the dense formula; gradients are averaged over the ranks."""
    size = len(found)
    losses, accuracies, gradients = expected(case)
    for pair in range(2):
        assert sum(rank[0][pair] for rank in found) / size == pytest.approx(losses[pair], rel=1e-12, abs=1e-14)
        assert sum(rank[1][pair] for rank in found) / size == pytest.approx(accuracies[pair])
    for number in range(3):
        torch.testing.assert_close(torch.cat([rank[2][number] for rank in found]) / size, gradients[number])
    for number in (3, 4):
        torch.testing.assert_close(torch.stack([rank[2][number] for rank in found]).mean(0), gradients[number])


MODES = [Negatives.gather, Negatives.ring, Negatives.auto]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_agree_with_the_dense_formula(ranks: Ranks, size: int, mode: Negatives) -> None:
    for seed, (masks, copies) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
        case = Case.random(seed, masks, copies)
        compare(case, ranks(size, one_rank, case, ObjectiveConfig(negatives=mode, tile=3)))


def test_local_negatives_are_those_of_one_process(ranks: Ranks) -> None:
    case = Case.random(1, masks=True)
    found = ranks(2, one_rank, case, ObjectiveConfig(negatives=Negatives.local))
    for rank, result in enumerate(found):
        compare(case.part(rank, 2), [result])


@limits(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 10))
def test_any_batch_any_tile_any_order(seed: int, size: int, tile: int) -> None:
    case = Case.random(seed, masks=bool(seed % 2), copies=bool(seed % 3), size=size)
    compare(case, [one_rank(case, ObjectiveConfig(tile=tile))])
    order = torch.randperm(size)
    shuffled = replace(
        case,
        sides=[side[order] for side in case.sides],
        valid=case.valid and [mask[order] for mask in case.valid],
        ids=None if case.ids is None else case.ids[order],
    )
    results = [some.losses(ALONE, ObjectiveConfig()) for some in (case, shuffled)]
    for before, after in zip(*results, strict=True):
        assert after.loss.item() == pytest.approx(before.loss.item(), rel=1e-12, abs=1e-14)
        assert after.mean_rank == before.mean_rank


def one(query: Tensor, key: Tensor, scale: Tensor | float = 10.0, bias: Tensor | float = -10.0) -> PairLoss:
    """One pair on one process."""
    return sigmoid_contrastive([Pair(query, key)], scale=scale, bias=bias, world=ALONE)[0]


def test_known_values() -> None:
    """Orthogonal rows: the diagonal's logit is scale + bias, all others are the bias."""
    eye = torch.eye(4, dtype=torch.float64)
    for scale, bias in ((10.0, -10.0), (5.0, 1.0)):
        value = math.log1p(math.exp(-scale - bias)) + 3 * math.log1p(math.exp(bias))
        result = one(eye, eye.clone(), scale, bias)
        assert result.loss.item() == pytest.approx(value, rel=1e-14)
        assert (result.accuracy, result.mean_rank) == (1, 1)
    worst = one(eye, eye[[1, 2, 3, 0]])
    assert (worst.accuracy, worst.mean_rank) == (0, 4)  # one nearer, two as near


@pytest.mark.parametrize("kind", ["identical", "opposite", "zero", "huge"])
def test_extreme_logits_stay_finite(kind: str) -> None:
    rows = torch.ones(6, 4)
    query, key = {
        "identical": (rows, rows.clone()),
        "opposite": (rows, -rows),
        "zero": (rows * 0, rows.clone()),
        "huge": (rows * 1e18, rows * 1e-18),
    }[kind]
    leaves = [query.requires_grad_(), key.requires_grad_(), torch.tensor([100.0]), torch.tensor([-10.0])]
    result = one(query, key, leaves[2].requires_grad_(), leaves[3].requires_grad_())
    gradients = torch.autograd.grad(result.loss, leaves)
    assert all(torch.isfinite(value).all() for value in (result.loss, *gradients))
    logit = {"identical": 90.0, "opposite": -110.0, "zero": -10.0, "huge": 90.0}[kind]
    value = math.log1p(math.exp(-logit)) + 5 * math.log1p(math.exp(logit))
    assert result.loss.item() == pytest.approx(value, rel=1e-6)


def test_a_tiny_loss_keeps_its_digits() -> None:
    eye = torch.eye(4)
    assert one(eye, eye.clone(), 100.0, -50.0).loss.item() == pytest.approx(4 * math.exp(-50), rel=1e-5)


def missing(ring: bool) -> tuple[float, list[Tensor]]:
    """One row per rank, all keys missing and filled with what must not matter."""
    query, key = torch.randn(1, 3).requires_grad_(), torch.full((1, 3), torch.nan).requires_grad_()
    scale, bias = torch.tensor([10.0]).requires_grad_(), torch.tensor([-10.0]).requires_grad_()
    settings = ObjectiveConfig(negatives=Negatives.ring if ring else Negatives.gather)
    pair = Pair(query, key, key_valid=torch.tensor([False]))
    result = sigmoid_contrastive([pair], scale=scale, bias=bias, world=World.current(), settings=settings)[0]
    return result.loss.item(), list(torch.autograd.grad(result.loss, [query, key, scale, bias]))


@pytest.mark.parametrize("ring", [False, True])
def test_a_modality_that_nobody_has(ranks: Ranks, ring: bool) -> None:
    for loss, gradients in ranks(2, missing, ring):
        assert loss == 0
        assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


def test_half_precision_is_widened_and_autocast_stays_out() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 6, 4).bfloat16()
    reference = one(query.float(), key.float())
    with torch.autocast("cpu", torch.bfloat16):
        result = one(query.requires_grad_(), key)
    assert result.loss.dtype is torch.float32
    assert result.loss.item() == pytest.approx(reference.loss.item(), rel=1e-6)
    result.loss.backward()
    assert query.grad is not None and query.grad.dtype is torch.bfloat16


def test_rounded_products_are_near() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 32, 16).requires_grad_()
    exact, near = (
        sigmoid_contrastive(
            [Pair(query, key)], scale=10.0, bias=-5.0, world=ALONE, settings=ObjectiveConfig(products=products)
        )[0].loss
        for products in (Products.float32, Products.bfloat16)
    )
    assert 0 < abs(exact.item() - near.item()) < 0.02 * exact.item()
    torch.testing.assert_close(
        *(torch.autograd.grad(x, query, retain_graph=True)[0] for x in (near, exact)), rtol=0.1, atol=3e-3
    )


@pytest.mark.parametrize("seed", range(6))
def test_rounded_products_round_the_own_counterpart_as_well(seed: int) -> None:
    """Collapsed embeddings: all logits are equal, positives included."""
    rows = torch.randn(1, 48, generator=torch.Generator().manual_seed(seed)).expand(64, 48)
    settings = ObjectiveConfig(products=Products.bfloat16)
    (result,) = sigmoid_contrastive([Pair(rows, rows)], scale=100.0, bias=-10.0, world=ALONE, settings=settings)
    assert result.accuracy == 0 and result.mean_rank == 64
    unit = torch.nn.functional.normalize(rows[:1]).bfloat16().double()
    logit = 100 * unit.square().sum().item() - 10
    assert result.loss.item() == pytest.approx(63 * logit, rel=1e-6)  # softplus, far from 0


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_rounded_products_are_those_of_rounded_rows(scale: float) -> None:
    """Equation 1 of unit rows that were rounded beforehand; only weights of sums are rounded besides."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 24, 16)
    leaves = [query, query + key, torch.tensor([scale]), torch.tensor([-scale / 2])]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    settings = ObjectiveConfig(products=Products.bfloat16, tile=7)
    pair = Pair(leaves[0], leaves[1])
    (result,) = sigmoid_contrastive([pair], scale=leaves[2], bias=leaves[3], world=ALONE, settings=settings)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    units = [torch.nn.functional.normalize(side) for side in exact[:2]]
    # Rounding passes gradients on as they are.
    rounded = [side + (side.float().bfloat16().double() - side).detach() for side in units]
    signs = 2 * torch.eye(24, dtype=torch.float64) - 1
    logits = exact[2] * rounded[0] @ rounded[1].T + exact[3]
    loss = -torch.nn.functional.logsigmoid(signs * logits).sum() / 24
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    found, right = (torch.autograd.grad(total, some) for total, some in ((result.loss, leaves), (loss, exact)))
    assert found[3].item() == pytest.approx(right[3].item(), rel=1e-5)
    for gradient, reference in zip(found[:3], right[:3], strict=True):
        assert (gradient - reference).norm() < 2**-8 * reference.norm()


def saved_bytes(settings: ObjectiveConfig, rows: int = 8) -> int:
    """Bytes that autograd keeps for the backward pass of this rank."""
    torch.manual_seed(0)
    query, key, scale, bias = torch.randn(rows, 16), torch.randn(rows, 16), torch.tensor([10.0]), torch.tensor([-10.0])
    for tensor in (query, key, scale, bias):
        tensor.requires_grad_()
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        sigmoid_contrastive([Pair(query, key)], scale=scale, bias=bias, world=World.current(), settings=settings)
    return sum(kept.values())


@pytest.mark.parametrize("mode", [Negatives.gather, Negatives.ring])
def test_what_is_kept_depends_neither_on_ranks_nor_on_tiles(ranks: Ranks, mode: Negatives) -> None:
    kept = {
        ranks(size, saved_bytes, ObjectiveConfig(negatives=mode, tile=tile))[0] for size in (1, 2) for tile in (2, 100)
    }
    assert len(kept) == 1
    small, large = (saved_bytes(ObjectiveConfig(), rows) for rows in (8, 64))
    assert large < 8.5 * small


def test_parts_without_a_gradient() -> None:
    case = Case.random(0).part(0, 1)
    _, _, whole = one_rank(Case.random(0), ObjectiveConfig())
    for number, leaf in enumerate([*case.sides, case.scale, case.bias]):
        for other in [*case.sides, case.scale, case.bias]:
            other.requires_grad_(other is leaf)
        results = case.losses(ALONE, ObjectiveConfig())
        total = torch.stack([w * r.loss for w, r in zip(WEIGHTS, results, strict=True) if r.loss.requires_grad]).sum()
        torch.testing.assert_close(torch.autograd.grad(total, leaf)[0], whole[number])
    with torch.no_grad():
        assert not case.losses(ALONE, ObjectiveConfig())[0].loss.requires_grad


def test_errors_name_the_problem() -> None:
    rows = torch.randn(3, 4)
    with pytest.raises(ValueError, match="only a row's own key"):
        sigmoid_contrastive([Pair(rows, rows, Labels(torch.arange(3)))], scale=1.0, bias=0.0, world=ALONE)
    with pytest.raises(ValueError, match=r"one scale .* \[3\]"):
        one(rows, rows, scale=torch.ones(3))
    with pytest.raises(ValueError, match="cannot be compared"):
        one(rows, torch.randn(3, 5))

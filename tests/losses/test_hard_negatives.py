"""The gate for hard negatives and the mask of likely false negatives: 1, 2 and 4 ranks equal one dense formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.config.objective import HardNegatives, Negatives, ObjectiveConfig, Products
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Labels, Pair, Soft, contrastive
from tests.losses.dense_negatives import Further, contrast_further
from tests.rank_pool import Ranks

ROWS, FEATURES, WIDTH, COUNT = 16, 5, 4, 3
GATHER, RING, LOCAL = (
    ObjectiveConfig(mode, tile=3, keep_mb=0) for mode in (Negatives.gather, Negatives.ring, Negatives.local)
)
KEPT = ObjectiveConfig(Negatives.gather, tile=5)
OWN = HardNegatives.own


@dataclass(frozen=True)
class Case:
    """keys, queries: whether there are hard negatives of that side. lacking: some samples have fewer. frozen: an
    encoder without gradients."""

    settings: ObjectiveConfig = field(default_factory=lambda: GATHER, hash=False)
    keys: bool = True
    queries: bool = False
    lacking: bool = False
    missing: bool = False
    duplicates: bool = False
    same_side: bool = False
    frozen: str = ""


@dataclass(frozen=True)
class Rows:
    """A part of the batch: what is known of its samples."""

    query: Tensor
    key: Tensor
    key_negatives: Tensor
    query_negatives: Tensor
    there: Tensor
    valid: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Outcome:
    """loss and left_out: means over the ranks. grads: by parameter."""

    loss: float
    left_out: float
    grads: dict[str, Tensor]


class Toy(nn.Module):
    """An encoder per side, and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(FEATURES, WIDTH), nn.Linear(FEATURES, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor([1.7]))
        self.double()


def toy_of(case: Case) -> Toy:
    toy = Toy()
    if case.frozen:
        toy.get_submodule(case.frozen).requires_grad_(False)
    return toy


def rows_of(case: Case, rank: int = 0, world: int = 1) -> Rows:
    """The rank's part of the batch; copies of a sample are alike and lie on different ranks."""
    draw = torch.Generator().manual_seed(2)
    ids = torch.arange(ROWS)
    if case.duplicates:
        ids[9], ids[15], ids[10], ids[1] = 0, 0, 2, 0
    shared = torch.randn(ROWS, 1, FEATURES, generator=draw, dtype=torch.float64)
    sizes = (1, 1, COUNT, COUNT)
    noise = [torch.randn(ROWS, size, FEATURES, generator=draw, dtype=torch.float64) for size in sizes]
    query, key, keys, queries = ((shared + part)[ids] for part in noise)
    there = torch.rand(ROWS, COUNT, generator=draw) > 0.4
    valid = torch.rand(ROWS, generator=draw) > 0.3
    keys[~there] *= 1e3
    own = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    return Rows(*(part[own] for part in (query[:, 0], key[:, 0], keys, queries, there, valid, ids)))


def run(case: Case) -> Outcome:
    """The function under test on this rank's rows."""
    world = World.current()
    toy, rows = toy_of(case), rows_of(case, world.rank, world.size)
    there = rows.there if case.lacking else None
    valid = rows.valid if case.missing else None
    if there is not None and valid is not None:
        there = there & valid[:, None]
    pair = Pair(
        toy.query(rows.query),
        toy.key(rows.key),
        same_side=case.same_side,
        query_valid=valid,
        key_valid=valid,
        key_negatives=toy.key(rows.key_negatives) if case.keys else None,
        key_negatives_valid=there if case.keys else None,
        query_negatives=toy.query(rows.query_negatives) if case.queries else None,
        query_negatives_valid=there if case.queries else None,
    )
    ids = rows.ids if case.duplicates else None
    scale = toy.log_scale.exp()
    (found,) = contrastive([pair], scale=scale, world=world, settings=case.settings, sample_ids=ids)
    found.loss.backward()
    average_gradients(toy.parameters(), world)
    return Outcome(found.loss.item(), 0.0 if found.left_out is None else found.left_out.item(), grads_of(toy))


def run_all(cases: list[Case]) -> list[Outcome]:
    """One call of the ranks for many cases."""
    return [run(case) for case in cases]


def grads_of(toy: Toy) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in toy.named_parameters() if p.grad is not None}


def dense(case: Case, parts: int = 1) -> Outcome:
    """By the formulas of docs/contrastive.md, row by row; parts: separate batches (local negatives)."""
    toy, losses, shares = toy_of(case), [], []
    for part in range(parts):
        loss, share = dense_part(case, toy, rows_of(case, part, parts))
        losses.append(loss)
        shares.append(share)
    total = torch.stack(losses).mean()
    total.backward()
    return Outcome(total.item(), sum(shares) / parts, grads_of(toy))


def dense_part(case: Case, toy: Toy, rows: Rows) -> tuple[Tensor, float]:
    valid = rows.valid if case.missing else None
    there = rows.there if case.lacking else torch.ones_like(rows.there)
    there = there if valid is None or not case.lacking else there & valid[:, None]
    found = contrast_further(
        toy.query(rows.query),
        toy.key(rows.key),
        toy.log_scale.exp(),
        of_key=Further(toy.key(rows.key_negatives), there) if case.keys else None,
        of_query=Further(toy.query(rows.query_negatives), there) if case.queries else None,
        own=case.settings.hard_negatives is OWN,
        margin=case.settings.false_negative_margin,
        ids=rows.ids if case.duplicates else None,
        valid=valid,
        same_side=case.same_side,
    )
    return found.loss, found.left_out


def difference(found: list[Outcome], exact: Outcome) -> str:
    """What is further apart than rounding; '' if nothing is."""
    loss = sum(one.loss for one in found) / len(found)
    left_out = sum(one.left_out for one in found) / len(found)
    wrong = [f"loss {loss} for {exact.loss}"] if abs(loss - exact.loss) > 1e-12 * abs(exact.loss) else []
    wrong += [f"left out {left_out} for {exact.left_out}"] if abs(left_out - exact.left_out) > 1e-12 else []
    for name, grad in exact.grads.items():
        if not all((one.grads[name] - grad).abs().max() <= 1e-10 * grad.abs().max() for one in found):
            wrong.append(f"gradient of {name}")
    return "; ".join(wrong)


CASES: dict[str, Case] = {
    "gather": Case(),
    "ring": Case(RING),
    "kept": Case(KEPT),
    "both-sides": Case(RING, queries=True),
    "queries-only": Case(GATHER, keys=False, queries=True),
    "lacking": Case(RING, lacking=True, queries=True),
    "missing": Case(GATHER, lacking=True, missing=True, queries=True),
    "copies": Case(RING, duplicates=True, queries=True),
    "same-side": Case(GATHER, same_side=True, lacking=True),
    "frozen-key": Case(RING, queries=True, frozen="key"),
    "frozen-query": Case(replace(GATHER, false_negative_margin=0.1), queries=True, frozen="query"),
    "frozen-key-own": Case(replace(RING, hard_negatives=OWN), queries=True, frozen="key"),
    "own": Case(replace(GATHER, hard_negatives=OWN), queries=True),
    "own-lacking-ring": Case(replace(RING, hard_negatives=OWN), lacking=True, missing=True, duplicates=True),
    "margin": Case(replace(GATHER, false_negative_margin=0.1), keys=False),
    "margin-ring": Case(replace(RING, false_negative_margin=0.1)),
    "margin-kept": Case(replace(KEPT, false_negative_margin=0.1), queries=True),
    "margin-below-0": Case(replace(RING, false_negative_margin=-0.2), queries=True, lacking=True),
    "margin-own": Case(replace(RING, false_negative_margin=0.05, hard_negatives=OWN), queries=True, lacking=True),
    "margin-same-side": Case(replace(RING, false_negative_margin=0.1), same_side=True),
    "margin-same-side-kept": Case(replace(KEPT, false_negative_margin=0.1), same_side=True),
    "margin-everything": Case(
        replace(RING, false_negative_margin=0.1), queries=True, lacking=True, missing=True, duplicates=True
    ),
}
LOCALS = [
    Case(LOCAL, lacking=True),
    Case(replace(LOCAL, hard_negatives=OWN, false_negative_margin=0.1), queries=True),
    Case(replace(LOCAL, false_negative_margin=0.1), queries=True, lacking=True, duplicates=True),
]


def failures(ranks: Ranks, size: int, cases: Iterable[tuple[str, Case]], parts: int = 1) -> list[str]:
    """What the ranks make otherwise than the dense formula."""
    named = list(cases)
    found = zip(*ranks(size, run_all, [case for _, case in named]), strict=True)
    differences = (
        (name, difference(list(outcomes), dense(case, parts)))
        for (name, case), outcomes in zip(named, found, strict=True)
    )
    return [f"{name}: {said}" for name, said in differences if said]


@pytest.mark.parametrize("name", CASES)
def test_one_process_equals_the_dense_formula(name: str) -> None:
    assert difference([run(CASES[name])], dense(CASES[name])) == ""


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_equal_the_dense_formula(ranks: Ranks, size: int) -> None:
    assert failures(ranks, size, CASES.items()) == []


def test_local_negatives_are_the_mean_over_separate_batches(ranks: Ranks) -> None:
    for size in (2, 4):
        assert failures(ranks, size, ((str(case), case) for case in LOCALS), parts=size) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_combination_equals_the_dense_formula(ranks: Ranks, size: int) -> None:
    settings = [
        replace(mode, hard_negatives=whose, false_negative_margin=margin)
        for mode, whose, margin in product((GATHER, RING, KEPT), HardNegatives, (None, 0.1, -0.2))
    ]
    cases = [
        Case(one, True, queries, lacking, missing, duplicates, same_side)
        for one, (queries, lacking, missing, duplicates, same_side) in product(
            settings, product((False, True), repeat=5)
        )
    ]
    assert failures(ranks, size, ((str(case), case) for case in cases)) == []


def test_the_options_change_the_loss() -> None:
    plain = run(Case(keys=False)).loss
    everyones, own, margin = (run(CASES[name]) for name in ("gather", "own", "margin"))
    assert len({plain, everyones.loss, own.loss, margin.loss}) == 4
    assert 0 < margin.left_out < 1
    assert run(Case(replace(GATHER, false_negative_margin=1.99), keys=False)).loss == plain


def test_finite_differences_agree() -> None:
    case = CASES["margin-everything"]
    settings = replace(case.settings, negatives=Negatives.gather)
    rows = rows_of(case)
    few = slice(0, 5)  # two passes for each of their numbers
    sides = [side[few].clone().requires_grad_() for side in (rows.query, rows.key, rows.key_negatives)]
    scale = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)

    def loss(query: Tensor, key: Tensor, negatives: Tensor, scale: Tensor) -> Tensor:
        pair = Pair(query, key, key_negatives=negatives, key_negatives_valid=rows.there[few])
        return contrastive([pair], scale=scale, world=World.single(), settings=settings)[0].loss

    assert torch.autograd.gradcheck(loss, (*sides, scale))


@pytest.mark.parametrize("whose", HardNegatives)
def test_rounded_products_are_close(whose: HardNegatives) -> None:
    rows = [torch.randn(size, generator=torch.Generator().manual_seed(1)) for size in ((16, 24), (16, 24), (16, 2, 24))]
    settings = ObjectiveConfig(tile=5, keep_mb=0, hard_negatives=whose)
    found = []
    for products in Products:
        sides = [side.clone().requires_grad_() for side in rows]
        pair = Pair(sides[0], sides[1], key_negatives=sides[2])
        chosen = replace(settings, products=products)
        (result,) = contrastive([pair], scale=5.0, world=World.single(), settings=chosen)
        result.loss.backward()
        found.append([result.loss.detach(), *(side.grad for side in sides if side.grad is not None)])
    for exact, rounded in zip(*found, strict=True):
        assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_copies_of_the_own_key_are_not_above_it() -> None:
    """With a margin of 0 a text that many samples share must not be left out by rounding in some tiles only."""
    torch.manual_seed(0)
    query, key = torch.randn(33, 24), torch.randn(1, 24).expand(33, 24)
    settings = ObjectiveConfig(tile=7, false_negative_margin=0.0)
    (found,) = contrastive([Pair(query, key, one_way=True)], scale=50.0, world=World.single(), settings=settings)
    assert found.left_out is not None and found.left_out.item() == 0


@pytest.mark.parametrize("targets", [Labels(torch.zeros(4, dtype=torch.int64)), Soft(torch.ones(4, 2))])
def test_targets_without_one_own_pair_are_refused(targets: Labels | Soft) -> None:
    rows, further = torch.eye(4, 2), torch.ones(4, 1, 2)
    with pytest.raises(ValueError, match="key_negatives go with Diagonal"):
        contrastive([Pair(rows, rows, targets, key_negatives=further)], scale=1.0, world=World.single())
    settings = ObjectiveConfig(false_negative_margin=0.1)
    with pytest.raises(ValueError, match="goes with Diagonal targets, not"):
        contrastive([Pair(rows, rows, targets)], scale=1.0, world=World.single(), settings=settings)


@pytest.mark.parametrize(
    ("negatives", "valid", "said"),
    [
        (torch.ones(4, 2), None, r"\[4, k, 2\] is needed"),
        (torch.ones(4, 1, 3), None, r"\[4, k, 2\] is needed"),
        (torch.ones(4, 1, 2), torch.ones(4, dtype=torch.bool), "a bool for each"),
        (None, torch.ones(4, 1, dtype=torch.bool), "without key_negatives"),
    ],
)
def test_hard_negatives_that_do_not_fit_are_refused(negatives: Tensor | None, valid: Tensor | None, said: str) -> None:
    rows = torch.eye(4, 2)
    pair = Pair(rows, rows, key_negatives=negatives, key_negatives_valid=valid)
    with pytest.raises(ValueError, match=said):
        contrastive([pair], scale=1.0, world=World.single())
